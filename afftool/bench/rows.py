"""What a bench works on: cases in groups that are raced against each other, and a row for each case and backend."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from afftool import stats
from afftool.allocator import name_of_allocator
from afftool.errors import AfftoolError
from afftool.failure import Failure
from afftool.global_state import set_by
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec
from afftool.spec.sweep import baseline_of

if TYPE_CHECKING:
    from afftool.bench.entry import Entrant


def by_setting(cases: Iterable[CaseSpec]) -> list[list[CaseSpec]]:
    """The cases in groups that differ in nothing but the fusion, in the order they were given, each once."""
    groups: dict[Any, dict[str, CaseSpec]] = {}
    for case in cases:
        setting = tuple(value for name, value in case.fields().items() if name != "fusion")
        groups.setdefault((*setting, case.fusion.inputs, case.input_shapes()), {})[case.fusion.text] = case
    return [list(group.values()) for group in groups.values()]


@dataclass(frozen=True)
class Group:
    """Cases that differ in nothing but the fusion; `baseline` is the one the others are compared with."""

    specs: tuple[CaseSpec, ...]
    baseline: CaseSpec | None

    @classmethod
    def of(cls, specs: list[CaseSpec], baseline: FusionSpec | None) -> Group:
        """The group with its baseline in front, added if it is missing and possible."""
        if baseline is None:
            return cls(tuple(specs), None)
        fusion = baseline_of(specs[0].fusion, baseline)
        if fusion is None:
            return cls(tuple(specs), None)
        found = next((spec for spec in specs if spec.fusion.text == fusion.text), None)
        if found is None:
            try:
                found = dataclasses.replace(specs[0], fusion=fusion)
            except AfftoolError:
                return cls(tuple(specs), None)
        return cls((found, *(spec for spec in specs if spec is not found)), found)

    @property
    def device(self) -> str:
        """Where all of them run."""
        return self.specs[0].device

    @property
    def challengers(self) -> list[CaseSpec]:
        """All but the baseline."""
        return [spec for spec in self.specs if spec is not self.baseline]


def blank(spec: CaseSpec, backend: str | None = None) -> Record:
    """The record of a case under a backend, None for no backend, of which nothing has been found out."""
    return Record(**spec.stored(), scenario=spec.host.scenario, identity=spec.identity, backend=backend)


def with_global_state(spec: CaseSpec, record: Record) -> Record:
    """The record with what the case's own files have set for the whole process, here or where it was read."""
    found = {**(record.global_state or {}), **(set_by(*spec.own_targets) or {})}
    return replace(record, global_state=found or None)


def lacking(record: Record, what: str | None) -> Record:
    """The record with one more thing that is missing in it, if it is."""
    return replace(record, reason="; ".join(filter(None, [record.reason, what])) or None)


@dataclass
class Row:
    """A case under a backend on its way to a record: what is known so far, and an entrant while it can be timed.

    `known` is its record as it was made, before any attempt to get it ready. One that is to be timed in `fresh`
    processes, started when it is its turn, has no entrant: it is `ready` once it was found to be right. `samples_s` are
    those of the last race it was in, by process; a baseline's row is in several, and only the first is its own.
    """

    spec: CaseSpec
    record: Record
    fresh: bool = False
    entrant: Entrant | None = None
    ready: bool = False
    samples_s: tuple[tuple[float, ...], ...] = ()
    known: Record = field(init=False)

    def __post_init__(self) -> None:
        self.known = self.record

    @property
    def backend(self) -> str:
        """The backend's name."""
        assert self.record.backend is not None
        return self.record.backend

    @property
    def failed(self) -> bool:
        """Whether it can no longer be timed."""
        return self.record.status != "ok"

    @property
    def timed(self) -> bool:
        """Whether it has its times already."""
        return bool(self.record.samples_ms)

    def enter(self, entrant: Entrant) -> None:
        """Take what getting ready has found out, unless it has its times already, and keep the case ready."""
        self.ready = True
        if not self.timed:
            self.record = entrant.record
        if self.fresh:
            entrant.close()
        else:
            self.entrant = entrant

    def enter_as(self, twin: Row) -> None:
        """Take over what getting ready has found out for the same case and backend, timed in another regime."""
        self.ready = True
        self.record = replace(twin.record, allocator=name_of_allocator())

    def fail(self, error: BaseException) -> None:
        """Note the status and the reason that an error means."""
        failure = Failure.of(error)
        if failure.kind and failure.hint is None:
            failure = replace(failure, hint=self.spec.fusion.hint_on(failure.message))
        self.record = with_global_state(self.spec, replace(self.record, status=failure.status, reason=failure.reason))

    def close(self) -> None:
        """Let go of the case."""
        self.ready = False
        if self.entrant is not None:
            with contextlib.suppress(Exception):  # what failed may fail again
                self.entrant.close()
            self.entrant = None


def compare(rows: Sequence[Row], baseline: CaseSpec) -> None:
    """Give each row its ratio to the baseline's under the same backend, from the rounds they shared.

    Of rows timed in several processes the nth of each were timed in turns: each such pair is one draw.
    """
    bases = {
        (row.backend, row.record.allocator): row
        for row in rows
        if row.spec is baseline and row.samples_s and not row.failed
    }
    for row in rows:
        base = bases.get((row.backend, row.record.allocator))
        if base is None or row.failed or not row.samples_s:
            continue
        row.record = replace(row.record, baseline=baseline.fusion.text)
        if row is base:
            row.record = replace(row.record, latency_ratio=1.0)
            continue
        pairs = list(zip(row.samples_s, base.samples_s, strict=True))
        if ratio := stats.paired_ratio(*pairs[0]) if len(pairs) == 1 else stats.ratio_of_pairs(pairs):
            row.record = replace(
                row.record, latency_ratio=ratio.estimate, latency_ratio_low=ratio.low, latency_ratio_high=ratio.high
            )
