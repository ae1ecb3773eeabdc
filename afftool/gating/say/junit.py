"""A judgement as JUnit XML, as Jenkins, GitLab and Azure read it: a test case a verdict."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from afftool.errors import AfftoolError
from afftool.gate import Judgement, Verdict
from afftool.gating.say.table import amount, ratio, word

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to say."""


def render(judgement: Judgement, *, seconds: float, strict: bool = False) -> str:
    """The document. A regression is a failure, a case that cannot run an error, no answer a skipped test.

    `strict` makes inconclusive verdicts failures, as it does for the exit code.
    """
    decided = [(verdict, _kind(verdict, strict)) for verdict in judgement.verdicts]
    counts = {kind: str(sum(k == kind for _, k in decided)) for kind in ("failure", "error", "skipped")}
    totals = {"tests": str(len(decided)), "failures": counts["failure"], "errors": counts["error"]}
    totals |= {"skipped": counts["skipped"], "time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", {"name": "afftool check"} | totals)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "afftool check"} | totals)
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("before", judgement.before), ("after", judgement.after)):
        ElementTree.SubElement(properties, "property", name=name, value=_clean(value))
    for verdict, kind in decided:
        _add(suite, verdict, kind)
    if judgement.notes:
        ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(judgement.notes))
    return _text(root)


def refusal(error: AfftoolError, *, seconds: float) -> str:
    """The document of a check that could not be carried out: one test case, with an error."""
    totals = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0", "time": f"{seconds:.3f}"}
    root = ElementTree.Element("testsuites", {"name": "afftool check"} | totals)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "afftool check"} | totals)
    case = ElementTree.SubElement(suite, "testcase", name="check", classname="afftool", time="0")
    why = {"message": _clean(error.message), "type": type(error).__name__}
    ElementTree.SubElement(case, "error", why).text = _clean(str(error))
    return _text(root)


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
        suite, "testcase", name=verdict.metric, classname=_clean(verdict.case.replace(".", "·")), time="0"
    )
    before, after = amount(verdict.metric, verdict.before), amount(verdict.metric, verdict.after)
    numbers = f"before {before}, after {after}, ratio {ratio(verdict.ratio)}, rule {verdict.rule or 'none'}"
    if kind == "skipped":
        ElementTree.SubElement(case, kind, message=_clean(f"{word(verdict)}: {verdict.reason or numbers}"))
    elif kind is not None:
        why = verdict.reason or numbers
        ElementTree.SubElement(case, kind, message=_clean(why), type=verdict.outcome).text = _clean(f"{why}\n{numbers}")


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
