"""What a check has to say, and all of it in words and tables (`afftool.tables`), the worst first."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from afftool.report.exact import as_they_are
from afftool.tables import Column, Report, Table

Severity = Literal["fault", "warning", "note", "ok", "unknown"]

SEVERITIES: dict[Severity, str] = {
    "fault": "it does not do what it should",
    "warning": "it is likely to hurt",
    "note": "worth knowing",
    "unknown": "could not be checked",
    "ok": "looked at, nothing to say against it",
}
"""From the worst to the best."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding: what was seen, why it matters, what to do, and the numbers behind it."""

    check: str = ""
    """The name of the check; `checks.review` puts it in, so that no check has to say its own."""
    severity: Severity
    what: str
    why: str = ""
    do: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)


_HEADINGS = {"severity": "severity", "check": "check", "what": "what", "why": "why it matters", "do": "what to do"}


def inspect_report(name: str, findings: Sequence[Finding], setting: Mapping[str, Any]) -> Report:
    """The report on one module; `setting` says on what input it was looked at."""
    order = list(SEVERITIES)
    ranked = sorted(findings, key=lambda f: order.index(f.severity))
    counts = Counter(f.severity for f in findings)
    said = [f for f in ranked if f.severity != "ok"]
    fine = [f for f in ranked if f.severity == "ok"]
    return Report(
        title=f"Inspection of {name}",
        facts=(
            ("Looked at", ", ".join(f"{key} {value}" for key, value in setting.items())),
            ("Found", ", ".join(f"{counts[s]} {s}" for s in order if counts[s]) or "nothing"),
        ),
        tables=tuple(
            table
            for table in (
                _table("Findings", said, ("severity", "check", "what", "why", "do")),
                _table("Nothing to say against", fine, ("check", "what")),
            )
            if table.rows
        ),
        data=as_they_are((dataclasses.asdict(f) for f in ranked), tuple(_HEADINGS)),
        document={
            "schema": 1,
            "fusion": name,
            **setting,
            "findings": [{**dataclasses.asdict(f), "measured": dict(f.measured)} for f in ranked],
        },
        notes=tuple(f"{severity}: {meaning}." for severity, meaning in SEVERITIES.items() if counts[severity]),
    )


def _table(title: str, findings: Sequence[Finding], names: tuple[str, ...]) -> Table:
    columns: list[Column[Finding]] = [Column(name, _HEADINGS[name]) for name in names]
    return Table.of(title, findings, columns)
