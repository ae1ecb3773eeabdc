"""A case under a backend on its way to a record."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from afftool import stats
from afftool.record import Record
from afftool.spec import CaseSpec


@dataclass
class Row:
    """A case under a backend on its way to a record: an entry while it can be timed, the fields found so far."""

    spec: CaseSpec
    backend: str
    fields: dict[str, Any]
    entry: Any = None
    samples: tuple[float, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether it can no longer be timed."""
        return bool(self.fields.get("status", "ok") != "ok")

    def take(self, fields: dict[str, Any]) -> None:
        """Add what was found out. What was not, and why, is kept beside what was already missing."""
        reasons = [reason for reason in (self.fields.get("reason"), fields.get("reason")) if reason]
        self.fields |= fields | ({"reason": "; ".join(reasons)} if reasons else {})

    def fail(self, error: BaseException) -> None:
        """Note the status and the reason that an error means."""
        from afftool.entry import outcome

        status, reason = outcome(error)
        self.fields |= {"status": status, "reason": reason}

    def close(self) -> None:
        """Let go of the case."""
        if self.entry is not None:
            with contextlib.suppress(Exception):  # what failed may fail again
                self.entry.close()
            self.entry = None


def compare(rows: Sequence[Row], baseline: CaseSpec) -> None:
    """Give each row its ratio to the baseline's under the same backend, from the rounds they shared."""
    bases = {row.backend: row for row in rows if row.spec is baseline and row.samples and not row.failed}
    for row in rows:
        base = bases.get(row.backend)
        if base is None or row.failed or not row.samples:
            continue
        row.fields["baseline"] = baseline.fusion.text
        if row is base:
            row.fields |= {"latency_ratio": 1.0}
            continue
        ratio = stats.paired_ratio(row.samples, base.samples)
        if ratio is not None:
            row.fields |= {
                "latency_ratio": ratio.estimate,
                "latency_ratio_low": ratio.low,
                "latency_ratio_high": ratio.high,
            }


def to_record(spec: CaseSpec, backend: str | None, fields: dict[str, Any]) -> Record:
    """The record of a case under a backend, None for no backend, with what was found out."""
    return Record(**spec.stored(), scenario=spec.host.scenario, backend=backend, identity=spec.identity, **fields)
