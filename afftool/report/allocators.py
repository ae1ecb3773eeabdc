"""The same rows under the C library's allocator and with freed memory kept: what that is worth, and how to have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from afftool import units
from afftool.allocator import TO_KEEP
from afftool.record import Record
from afftool.report.columns import setting_of
from afftool.tables import Column, Table

WORTH_SAYING = 0.1
"""The two regimes stand side by side where their times differ by more than that."""
FAULT_MS = 0.25e-3
"""The least that a page takes that is faulted in: the kernel zeroes 4 KiB."""


@dataclass(frozen=True)
class Twins:
    """One row in both regimes."""

    system: Record
    kept: Record

    @property
    def times(self) -> float:
        """How many times faster it is with freed memory kept."""
        assert self.system.latency_ms is not None
        assert self.kept.latency_ms is not None
        return self.system.latency_ms / self.kept.latency_ms

    @property
    def differ(self) -> bool:
        """Whether it matters."""
        return abs(self.times - 1) > WORTH_SAYING


def twins(records: Sequence[Record]) -> list[Twins]:
    """The rows that were timed in both regimes."""
    timed = [r for r in records if r.status == "ok" and r.latency_ms]
    kept = {_row(r): r for r in timed if r.allocator == "kept"}
    return [Twins(r, kept[_row(r)]) for r in timed if r.allocator not in ("kept", None) and _row(r) in kept]


def worth_showing(records: Sequence[Record]) -> list[Record]:
    """The records without the rows with freed memory kept that take as long without; these stay in the data."""
    alike = {id(pair.kept) for pair in twins(records) if not pair.differ}
    return [record for record in records if id(record) not in alike]


def in_words(records: Sequence[Record]) -> str | None:
    """In what kind of process the rows were timed; None where none was, on the CPU."""
    said: dict[str, None] = {}
    for record in (r for r in records if r.allocator and r.latency_ms is not None):
        if record.allocator == "kept":
            words = "kept by the process"
        else:
            whose = {"system": "the C library's allocator", "tuned": "the C library's allocator as it was told"}
            words = f"as {whose.get(record.allocator or '', record.allocator)} likes"
        if record.processes and record.isolation == "process":
            words += f", in {record.processes} fresh process{'es' if record.processes > 1 else ''} a row"
        said[words] = None
    alike = sum(not pair.differ for pair in twins(records))
    if alike:
        said[f"{alike} rows take within {WORTH_SAYING:.0%} of their time with it kept, and are not shown again"] = None
    return "; ".join(said) or None


def freed_memory(records: Sequence[Record]) -> Table | None:
    """A sentence a row on what becomes of the memory it frees, where that costs time; None where it does not."""
    pairs = twins(records)
    both = {id(pair.system) for pair in pairs}
    said = [(pair.system, _difference(pair)) for pair in pairs if pair.differ]
    said += [
        (record, f"{units.scaled(record.page_faults or 0)} page faults a step; --allocator both tells what they cost")
        for record in records
        if record.status == "ok" and record.allocator == "system" and id(record) not in both and _faults_a_lot(record)
    ]
    columns: tuple[Column[tuple[Record, str]], ...] = (
        Column("freed_memory", "freed memory", get=lambda item: item[1]),
        Column("rows", "row", get=lambda item: " ".join(filter(None, (item[0].fusion, item[0].backend)))),
    )
    if not said:
        return None
    note = f"To keep freed memory in a process: {TO_KEEP}." if any(pair.differ for pair in pairs) else ""
    return Table.of("Freed memory", said, columns, note)


def _difference(pair: Twins) -> str:
    faster = pair.times > 1
    times = units.ratio(pair.times if faster else 1 / pair.times)
    faults = f" ({units.scaled(pair.system.page_faults)} page faults a step without)" if pair.system.page_faults else ""
    return f"{times} {'faster' if faster else 'slower'} with freed memory kept{faults}"


def _faults_a_lot(record: Record) -> bool:
    return (record.page_faults or 0) * FAULT_MS > WORTH_SAYING * (record.latency_ms or float("inf"))


def _row(record: Record) -> tuple[object, ...]:
    return (record.fusion, setting_of(record), record.backend)
