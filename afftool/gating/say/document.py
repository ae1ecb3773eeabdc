"""A judgement as data, for `--json`: exact numbers, null where there is none."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

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
    }


def render(data: dict[str, Any]) -> str:
    """The document as text."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
