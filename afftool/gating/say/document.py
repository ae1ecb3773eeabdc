"""A judgement as data, for `--json`: exact numbers, null where there is none."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from afftool.errors import AfftoolError
from afftool.gate import Judgement

SCHEMA = 1


def document(judgement: Judgement, *, exit_code: int, seconds: float) -> dict[str, Any]:
    """The judgement with what the process exits with."""
    return {
        "schema": SCHEMA,
        "before": judgement.before,
        "after": judgement.after,
        "exit_code": exit_code,
        "seconds": round(seconds, 3),
        "counts": dict(judgement.counts()),
        "notes": list(judgement.notes),
        "verdicts": [dataclasses.asdict(verdict) for verdict in judgement.verdicts],
        "error": None,
    }


def refusal(error: AfftoolError, *, seconds: float) -> dict[str, Any]:
    """The document of a check that could not be carried out: no verdict, and why."""
    fields = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
    return document(Judgement(()), exit_code=error.exit_code, seconds=seconds) | {"error": fields}


def render(data: dict[str, Any]) -> str:
    """The document as text."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
