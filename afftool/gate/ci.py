"""A judgement for programs. Nothing is written or printed here.

JUnit XML is read by Jenkins, GitLab and Azure: a test case a verdict. GitHub's workflow commands put a verdict next to
the line in a pull request; no token is needed. The document is for `--json`: exact numbers, null where there is none.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from afftool.errors import AfftoolError
from afftool.formats.json import json_text
from afftool.gate.judge import Judgement, Verdict
from afftool.gate.say import amount, ratio, word
from afftool.visible import lines

SCHEMA = 1
"""Of the document."""
SUITE = "afftool check"
"""The name of the suite in JUnit XML."""


def junit(judgement: Judgement, *, seconds: float, strict: bool = False) -> str:
    """The document. A regression is a failure, a case that cannot run an error, no answer a skipped test.

    `strict` makes inconclusive verdicts failures, as it does for the exit code.
    """
    decided = [(verdict, _kind(verdict, strict)) for verdict in judgement.verdicts]
    counts = Counter(kind for _, kind in decided)
    root, suite = _suite(len(decided), seconds, counts)
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("before", judgement.before), ("after", judgement.after)):
        ElementTree.SubElement(properties, "property", name=name, value=lines(value))
    for verdict, kind in decided:
        _add(suite, verdict, kind)
    if judgement.notes:
        ElementTree.SubElement(suite, "system-out").text = lines("\n".join(judgement.notes))
    return _text(root)


def junit_of_refusal(error: AfftoolError, *, seconds: float) -> str:
    """The document of a check that could not be carried out: one test case, with an error."""
    root, suite = _suite(1, seconds, Counter(["error"]))
    case = ElementTree.SubElement(suite, "testcase", name="check", classname="afftool", time="0")
    why = {"message": lines(error.message), "type": type(error).__name__}
    ElementTree.SubElement(case, "error", why).text = lines(str(error))
    return _text(root)


def _suite(tests: int, seconds: float, counts: Counter[str | None]) -> tuple[ElementTree.Element, ElementTree.Element]:
    """The root and the one suite in it, with their totals; `counts` are of the kinds of `_kind`."""
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    totals = {"name": SUITE, "tests": str(tests)}
    totals |= {name: str(counts[kind]) for name, kind in kinds.items()} | {"time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", totals)
    return root, ElementTree.SubElement(root, "testsuite", totals)


def _text(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def _kind(verdict: Verdict, strict: bool) -> str | None:
    if verdict.advisory:
        return "skipped" if verdict.outcome not in ("fine", "improved") else None
    if verdict.outcome == "inconclusive" and strict:
        return "failure"
    kinds = {"regression": "failure", "broken": "error", "new": "skipped", "inconclusive": "skipped"}
    return kinds.get(verdict.outcome, "skipped" if verdict.outcome == "skipped" else None)


def _add(suite: ElementTree.Element, verdict: Verdict, kind: str | None) -> None:
    # dots in a class name would be read as packages
    case = ElementTree.SubElement(
        suite, "testcase", name=verdict.metric, classname=lines(verdict.case.replace(".", "·")), time="0"
    )
    before, after = amount(verdict.metric, verdict.before), amount(verdict.metric, verdict.after)
    numbers = f"before {before}, after {after}, ratio {ratio(verdict.ratio)}, rule {verdict.rule or 'none'}"
    if kind == "skipped":
        ElementTree.SubElement(case, kind, message=lines(f"{word(verdict)}: {verdict.reason or numbers}"))
    elif kind is not None:
        why = verdict.reason or numbers
        ElementTree.SubElement(case, kind, message=lines(why), type=verdict.outcome).text = lines(f"{why}\n{numbers}")


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


def command_of_refusal(message: str) -> str:
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
    return lines(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


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


def document_of_refusal(error: AfftoolError, *, seconds: float) -> dict[str, Any]:
    """The document of a check that could not be carried out: no verdict, and why."""
    fields = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
    return document(Judgement(()), exit_code=error.exit_code, seconds=seconds) | {"error": fields}


def render(data: dict[str, Any]) -> str:
    """The document as text."""
    return json_text(data)
