"""What a reader of a bench's numbers must know: values that are none, unsteady timings, what failed, and more."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from afftool.record import Record, Run
from afftool.report.allocators import freed_memory
from afftool.report.columns import Keys, keys_of, row_name, share
from afftool.report.context import cost_in_context
from afftool.report.usable import advice, as_told, unusable
from afftool.tables import Column, Table
from afftool.words import some_of

NAMED = 6
"""So many rows are named where something concerns several; of more, the others are counted."""

_FINITE = {"float16": "float16 ends at 65,504: take bfloat16, or work out sums, squares and exp in float32"}

_UNDEFINED = "look for a division by 0, a root or a logarithm of what is not positive, an exp of what is large"


def caveats(run: Run) -> tuple[Table, ...]:
    """All there is to know beside the compact table, what a graft costs and becomes of freed memory among it."""
    keys = keys_of(run.records)
    measured = [as_told(r) for r in run.records if r.status == "ok"]
    found = (cost_in_context(run.records), freed_memory(measured))
    return (*(table for table in found if table), *of_results(measured, keys), *of_run(run.records, keys))


def of_results(records: Sequence[Record], keys: Keys) -> tuple[Table, ...]:
    """What limits the numbers of measured rows, which are as people are told them (`as_told`)."""
    tables = (_incomplete(records, keys), _not_finite(records, keys), _unstable(records, keys), _writing(records))
    return tuple(table for table in tables if table)


def of_run(records: Sequence[Record], keys: Keys) -> tuple[Table, ...]:
    """What concerns rows without numbers as well: what files set for the whole process, and what was not measured."""
    tables = (_global_state(records, keys), _not_measured(records, keys))
    return tuple(table for table in tables if table)


def _incomplete(records: Sequence[Record], keys: Keys) -> Table | None:
    """What measured rows lack and why, with the rows it concerns; None if they lack nothing."""
    found: dict[str, list[str]] = {}
    for record in (r for r in records if r.reason):
        found.setdefault(record.reason or "", []).append(row_name(record, keys))
    wide: dict[str, list[Record]] = {}
    for record in records:
        if why := unusable(record):
            wide.setdefault(why, []).append(record)
    for why, rows in wide.items():
        found[f"latency not measured: {why}; {advice(rows)}"] = [row_name(record, keys) for record in rows]
    columns: tuple[Column[tuple[str, list[str]]], ...] = (
        Column("reason", "what is missing", get=lambda item: item[0]),
        Column("rows", "rows", get=lambda item: _all_or_some(item[1], len(records))),
    )
    return Table.of("Measured in part", found.items(), columns) if found else None


def _not_finite(records: Sequence[Record], keys: Keys) -> Table | None:
    """The rows that give infinities or NaNs, with what to do, the worst share by dtype; None if there are none."""
    found: dict[str, list[Record]] = {}
    for record in (r for r in records if r.nonfinite_share):
        found.setdefault(record.dtype, []).append(record)
    columns: tuple[Column[tuple[str, list[Record]]], ...] = (
        Column("values", "values", get=lambda item: f"up to {share(max(r.nonfinite_share or 0 for r in item[1]))}"),
        Column("advice", "what to do", get=lambda item: _FINITE.get(item[0], _UNDEFINED)),
        Column("rows", "rows", get=lambda item: _all_or_some([row_name(r, keys) for r in item[1]], len(records))),
    )
    note = "Infinities and NaNs among outputs and gradients: what such a row takes is no result, and none is marked."
    return Table.of("Not finite", found.items(), columns, note) if found else None


def _unstable(records: Sequence[Record], keys: Keys) -> Table | None:
    """What disturbed the timing, a line a kind: of the row it was worst in what to do, and the rows it concerns.

    None if nothing did.
    """
    timed = [r for r in records if r.latency_ms is not None]
    found: dict[str, list[Record]] = {}
    for record in timed:
        for kind in record.instability or {}:
            found.setdefault(kind, []).append(record)

    def named(item: tuple[str, list[Record]]) -> str:
        kind, rows = item
        names = _all_or_some([row_name(record, keys) for record in rows], len(records))
        several = len({_told(kind, record) for record in rows}) > 1
        return f"{names}; worst in {row_name(_worst(kind, rows), keys)}" if several else names

    columns: tuple[Column[tuple[str, list[Record]]], ...] = (
        Column("instability", "disturbed by", get=lambda item: item[0]),
        Column("advice", "what to do", get=lambda item: _told(item[0], _worst(*item))),
        Column("rows", "rows", get=named),
    )
    return Table.of("Unsteady timings", found.items(), columns) if found else None


def _told(kind: str, record: Record) -> str:
    return (record.instability or {})[kind]


def _worst(kind: str, records: Sequence[Record]) -> Record:
    """The row with the largest figure of a kind; the first where older records tell none."""
    return max(records, key=lambda record: (record.instability_figures or {}).get(kind, 0.0))


def _writing(records: Sequence[Record]) -> Table | None:
    """Which fusions write into their inputs; None if none does."""
    found = {(r.fusion, " and ".join(r.writes_inputs)): None for r in records if r.writes_inputs}
    columns: tuple[Column[tuple[str, str]], ...] = (
        Column("fusion", "fusion", get=lambda item: item[0]),
        Column("writes_inputs", "writes into its input", get=lambda item: item[1]),
    )
    note = "Each step saw the same values: they were put back before it, which no number here holds."
    return dataclasses.replace(Table.of("Inputs written into", found, columns), note=note) if found else None


def _global_state(records: Sequence[Record], keys: Keys) -> Table | None:
    """What files of the user's set for the whole process, and the rows made of them; None if nothing."""
    found: dict[str, list[str]] = {}
    for record in records:
        if record.global_state:
            what = "; ".join(f"{name}: {said}" for name, said in record.global_state.items())
            found.setdefault(what, []).append(row_name(record, keys))
    columns: tuple[Column[tuple[str, list[str]]], ...] = (
        Column("global_state", "what it sets", get=lambda item: item[0]),
        Column("rows", "rows", get=lambda item: _all_or_some(item[1], len(records))),
    )
    note = "A file of your own sets this for all that runs in its process; no other row ran under it."
    return Table.of("Set for the whole process, and put back", found.items(), columns, note) if found else None


def _not_measured(records: Sequence[Record], keys: Keys) -> Table | None:
    """The rows without numbers, and why; None if there are none."""
    rest = [r for r in records if r.status != "ok"]
    columns: Keys = (*keys, Column("status", "status"), Column("reason", "reason"))
    return Table.of("Not measured", rest, columns).without_empty_columns() if rest else None


def _all_or_some(names: Sequence[str], total: int) -> str:
    if len(names) == total:
        return f"all {total}"
    return some_of(names, NAMED if len(names) > NAMED + 1 else len(names))
