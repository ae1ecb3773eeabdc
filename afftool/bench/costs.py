"""What a case costs before any backend has run it, and whether there is anything to train."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from afftool.bench.elsewhere import Elsewhere
from afftool.bench.in_context import fused_at
from afftool.bench.rows import Row, blank, lacking, with_global_state
from afftool.errors import AfftoolError, LoadError, Rejected, TooLarge
from afftool.failure import FailedError, Failure
from afftool.global_state import kept
from afftool.measure.cost.count import count, reached
from afftool.measure.cost.reading import CUT_BY, Reach
from afftool.record import Record
from afftool.spec import MODULE, CaseSpec


@dataclass
class Costs:
    """The costs of cases, each counted once; `before_backends` says that the cases are to run as well.

    What is the user's own is counted `elsewhere`, if there is such a place.
    """

    measures: Collection[str]
    before_backends: bool
    elsewhere: Elsewhere | None = None
    _counted: dict[str, Record] = field(default_factory=dict)

    def of(self, spec: CaseSpec) -> Record:
        """The record of a case before any backend: what it costs, if that is asked for and can be counted."""
        if spec.identity not in self._counted:
            there = self.elsewhere if spec.own_targets else None
            self._counted[spec.identity] = self._counted_here(spec) if there is None else self._asked(spec, there)
        return self._counted[spec.identity]

    def _asked(self, spec: CaseSpec, elsewhere: Elsewhere) -> Record:
        row = Row(spec, blank(spec))
        try:
            return elsewhere.count(spec, self.measures, before_backends=self.before_backends)
        except (AfftoolError, FailedError) as error:
            row.fail(error)
            return row.record

    def _counted_here(self, spec: CaseSpec) -> Record:
        row = Row(spec, blank(spec))
        if "cost" in self.measures:
            try:
                with kept(spec.own_targets, "while it ran"):
                    reading = count(spec)
                row.record = _reached(spec, replace(row.record, **reading.fields), reading.reached)
            except (Exception, SystemExit) as error:
                row.fail(error)
                if self.before_backends and isinstance(error, LoadError | TooLarge):
                    # what runs neither on the meta device nor on the CPU, or is too large for that, may still run
                    row.record = replace(row.record, status="ok", reason=f"not counted: {row.record.reason}")
        elif spec.mode == "train":
            with contextlib.suppress(Exception, SystemExit), kept(spec.own_targets, "while it ran"):
                row.record = _reached(spec, row.record, reached(spec))
        with contextlib.suppress(Exception, SystemExit):  # a network that cannot be looked at says why when it runs
            if fused := fused_at(spec):
                row.record = replace(row.record, **fused.fields)
        return with_global_state(spec, row.record)


def _reached(spec: CaseSpec, record: Record, found: Reach) -> Record:
    """The record, failed where nothing can be trained, with what a gradient does not reach where only part can."""
    if spec.mode != "train":
        return record
    if cut := found.cut(input_gradients=spec.host == MODULE):
        return replace(record, status="failed", reason=Failure.of(Rejected(cut, hint=CUT_BY)).reason)
    ignored = found.ignored_inputs if spec.host == MODULE else found.ignored_parameters
    return lacking(record, f"no gradient reaches {ignored}" if ignored else None)
