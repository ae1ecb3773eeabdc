"""A judgement as GitHub workflow commands, which put it next to the line in a pull request. No token is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from afftool.gate import Judgement, Verdict
from afftool.gating.say.table import word


def commands(judgement: Judgement, *, config: Path | None, strict: bool = False) -> Iterator[str]:
    """A command for each verdict that someone has to look at.

    They point to the fusion's class; for afftool's own fusions to the `config` that names them, relative to where
    the check runs.
    """
    for verdict in judgement.verdicts:
        level = _level(verdict, strict)
        if level is None:
            continue
        file, _, line = (verdict.source or (config.as_posix() if config else "")).partition(":")
        place = {"file": file, "line": line, "title": f"{word(verdict)}: {verdict.metric}"}
        properties = ",".join(f"{name}={_property(value)}" for name, value in place.items() if value)
        yield f"::{level} {properties}::{_data(f'{verdict.case}: {verdict.reason or word(verdict)}')}"


def refusal(message: str) -> str:
    """The command for a check that could not be carried out."""
    return f"::error title=afftool check::{_data(message)}"


def _level(verdict: Verdict, strict: bool) -> str | None:
    if verdict.advisory:
        return "notice" if verdict.outcome == "regression" else None
    if verdict.fails:
        return "error"
    if verdict.outcome in ("inconclusive", "new"):
        return "error" if strict and verdict.outcome == "inconclusive" else "warning"
    return None


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
