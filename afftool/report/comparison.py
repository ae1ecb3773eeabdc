"""Two or more runs side by side: what each measured for the same case, as a multiple of the first run's value."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from afftool import units
from afftool.errors import SpecError
from afftool.record import SCHEMA, Record, Run
from afftool.report.columns import BACKEND, FUSION, QUANTITIES, SETTING, Quantity, setting_of
from afftool.report.exact import document
from afftool.report.lines import machine, software
from afftool.report.relative import Baseline, exact_rows
from afftool.report.usable import TIMES, as_told
from afftool.tables import Column, Report, Table

if TYPE_CHECKING:
    import pandas

_Key = tuple[str, tuple[Any, ...], str | None, str | None]
_Shared = tuple[Record, ...]
"""A case that every run measured: its record in each, in the order of the runs."""


def comparison(runs: Sequence[Run]) -> Report:
    """Put runs side by side, the first as the reference. Raises `SpecError` for fewer than two."""
    if len(runs) < 2:
        raise SpecError("a comparison needs two runs", hint="for example `afftool compare -2 -1`; see `afftool runs`")
    rows = _of_one_regime([_by_case(run) for run in runs])
    shared = [tuple(row[key] for row in rows) for key in rows[0] if all(key in other for other in rows[1:])]
    tables = [table for q in QUANTITIES if q.relative and (table := _side_by_side(q, runs, shared))]
    missing = _missing(runs, rows)
    return Report(
        title="afftool compare: " + " against ".join(f"run {run.id}" for run in (*runs[1:], runs[0])),
        facts=_facts(runs, len(shared)),
        tables=(*tables, missing) if missing else tuple(tables),
        data=_data(runs),
        document={"schema": SCHEMA, "runs": [{"run": run.id, "command": run.command, **document(run)} for run in runs]},
    )


def _by_case(run: Run) -> dict[_Key, Record]:
    """The last measured record of each case and backend of a run."""
    return {_key(record): as_told(record) for record in run.records if record.status == "ok"}


def _key(record: Record) -> _Key:
    return (record.fusion, setting_of(record), record.backend, record.allocator)


def _of_one_regime(rows: Sequence[dict[_Key, Record]]) -> list[dict[_Key, Record]]:
    """The rows, where a case was timed under one allocator in one run and under another in the next, without its times.

    Everything else of it is compared. A run may have a case under several.
    """
    cases: dict[tuple[Any, ...], list[dict[str | None, Record]]] = {}
    for place, row in enumerate(rows):
        for (*case, allocator), record in row.items():
            cases.setdefault(tuple(case), [{} for _ in rows])[place][allocator] = record
    found: list[dict[_Key, Record]] = [{} for _ in rows]
    for runs in cases.values():
        regimes = [timed for records in runs if (timed := records.keys() - {None})]  # what has no times fits any
        alike = set.intersection(*regimes) if regimes else {None}
        for row, records in zip(found, runs, strict=True):
            for allocator, record in records.items():
                if not alike:
                    row[*_key(record)[:3], None] = _without_times(record)
                elif allocator is None:
                    row |= {(*_key(record)[:3], one): record for one in alike}
                else:
                    row[_key(record)] = record
    return found


def _without_times(record: Record) -> Record:
    nothing: dict[str, Any] = dict.fromkeys(TIMES)
    return dataclasses.replace(record, allocator=None, latency_low_ms=None, latency_high_ms=None, **nothing)


def _side_by_side(quantity: Quantity, runs: Sequence[Run], shared: Sequence[_Shared]) -> Table | None:
    """One quantity: a column a run, and the ratio of each to the first. None where nobody measured it."""

    def value(place: int, records: _Shared) -> Any:
        return quantity.value(records[place])

    def ratio(place: int, records: _Shared) -> float | None:
        number, first = value(place, records), value(0, records)
        return number / first if number is not None and first else None

    measured = [records for records in shared if any(quantity.value(r) is not None for r in records)]
    if not measured:
        return None
    varying = [c for c in SETTING if len({c.value(first) for first, *_ in measured}) > 1]
    columns: list[Column[_Shared]] = [_of_first(column) for column in (FUSION, *varying, BACKEND)]
    for place, run in enumerate(runs):
        show, get = quantity.show, partial(value, place)
        columns.append(Column(f"{quantity.name}_run_{run.id}", f"run {run.id}", show, numeric=True, get=get))
    for place, run in enumerate(runs[1:], 1):
        name, heading = f"{quantity.name}_ratio_{run.id}", f"run {run.id} vs {runs[0].id}"
        columns.append(Column(name, heading, units.ratio, numeric=True, get=partial(ratio, place)))
    return Table.of(quantity.heading, measured, columns).without_empty_columns()


def _of_first(column: Column[Record]) -> Column[_Shared]:
    """What the records of a case have alike, got from the first of them."""
    return Column(column.name, column.heading, get=lambda records: column.value(records[0]))


def _missing(runs: Sequence[Run], rows: Sequence[dict[_Key, Record]]) -> Table | None:
    """Cases that some run did not measure."""
    everything: dict[_Key, Record] = {}
    for row in rows:
        for key, record in row.items():
            everything.setdefault(key, record)

    def absent(record: Record) -> str:
        return ", ".join(f"run {run.id}" for run, row in zip(runs, rows, strict=True) if _key(record) not in row)

    partly = [record for record in everything.values() if absent(record)]
    columns: list[Column[Record]] = [dataclasses.replace(c, numeric=False) for c in (FUSION, *SETTING, BACKEND)]
    columns.append(Column("missing", "not measured in", get=absent))
    return Table.of("Not in every run", partly, columns).without_empty_columns() if partly else None


def _facts(runs: Sequence[Run], shared: int) -> tuple[tuple[str, str], ...]:
    facts = [("Compared", f"{shared} cases that every run measured; ratios are to run {runs[0].id}")]
    facts += [(f"Run {run.id}", f"{run.started}: {run.command}") for run in runs]
    regimes = [{r.allocator for r in run.records if r.latency_ms is not None and r.allocator} for run in runs]
    if any(these != regimes[0] for these in regimes) and all(regimes):
        each = "; ".join(f"run {run.id}: {', '.join(sorted(these))}" for run, these in zip(runs, regimes, strict=True))
        facts.append(("Freed memory", f"{each}; times under different allocators are not compared"))
    if len({run.environment.fingerprint for run in runs}) == 1:
        facts += [("Machine", machine(runs[0].environment)), ("Software", software(runs[0].environment))]
        return tuple(facts)
    for run in runs:
        facts += [(f"Machine of run {run.id}", f"{machine(run.environment)}; {software(run.environment)}")]
    facts.append(
        ("Beware", "machine, threads or torch differ between these runs, so their times do not compare the code")
    )
    return tuple(facts)


def _data(runs: Sequence[Run]) -> pandas.DataFrame:
    """The rows of all runs under one another, with the run's id in front."""
    import pandas

    parts = [exact_rows(run.records, Baseline(run.records, run.baseline)) for run in runs]
    for run, part in zip(runs, parts, strict=True):
        part.insert(0, "run", run.id)
    return pandas.concat(parts, ignore_index=True)
