"""Two or more runs side by side: what each measured for the same case, as a multiple of the first run's value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from afftool import units
from afftool.errors import SpecError
from afftool.record import SCHEMA, Record, Run
from afftool.report.columns import METRICS, SETTING, Metric, cell, setting_of
from afftool.report.document import data_table, document
from afftool.report.facts import machine, software
from afftool.report.model import Column, Report, Table
from afftool.report.relative import Baseline

_Key = tuple[str, tuple[Any, ...], str | None]


def comparison(runs: Sequence[Run]) -> Report:
    """Put runs side by side, the first as the reference. Raises `SpecError` for fewer than two."""
    if len(runs) < 2:
        raise SpecError("a comparison needs two runs", hint="for example `afftool compare -2 -1`; see `afftool runs`")
    rows = [_by_case(run) for run in runs]
    shared = [key for key in rows[0] if all(key in other for other in rows[1:])]
    tables = [table for metric in METRICS if metric.relative and (table := _side_by_side(metric, runs, rows, shared))]
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
    return {(r.fusion, setting_of(r), r.backend): r for r in run.records if r.status == "ok"}


def _side_by_side(
    metric: Metric, runs: Sequence[Run], rows: Sequence[dict[_Key, Record]], shared: Sequence[_Key]
) -> Table | None:
    """One metric: a column a run, and the ratio of each to the first. None where nobody measured it."""
    name = metric.column.name
    measured = [key for key in shared if any(cell(row[key], name) is not None for row in rows)]
    if not measured:
        return None
    varying = [n for i, n in enumerate(SETTING) if len({setting[i] for _, setting, _ in measured}) > 1]
    keys = tuple(Column(n, n.replace("_", " ")) for n in ("fusion", *varying, "backend"))
    values = tuple(Column(f"{name}_run_{run.id}", f"run {run.id}", metric.column.show, numeric=True) for run in runs)
    ratios = tuple(
        Column(f"{name}_ratio_{run.id}", f"run {run.id} vs {runs[0].id}", units.ratio, numeric=True) for run in runs[1:]
    )
    lines = []
    for key in measured:
        numbers = [cell(row[key], name) for row in rows]
        first = numbers[0]
        quotients = [n / first if n is not None and first else None for n in numbers[1:]]
        lines.append((*(cell(rows[0][key], c.name) for c in keys), *numbers, *quotients))
    return Table(
        title=metric.column.heading, columns=(*keys, *values, *ratios), rows=tuple(lines)
    ).without_empty_columns()


def _missing(runs: Sequence[Run], rows: Sequence[dict[_Key, Record]]) -> Table | None:
    """Cases that some run did not measure."""
    everything = dict.fromkeys(key for row in rows for key in row)
    absent = [(key, [run.id for run, row in zip(runs, rows, strict=True) if key not in row]) for key in everything]
    columns = tuple(Column(n, n.replace("_", " ")) for n in ("fusion", *SETTING, "backend"))
    columns = (*columns, Column("missing", "not measured in"))
    lines = tuple(
        (fusion, *setting, backend, ", ".join(f"run {n}" for n in ids))
        for (fusion, setting, backend), ids in absent
        if ids
    )
    return Table(title="Not in every run", columns=columns, rows=lines).without_empty_columns() if lines else None


def _facts(runs: Sequence[Run], shared: int) -> tuple[tuple[str, str], ...]:
    facts = [("Compared", f"{shared} cases that every run measured; ratios are to run {runs[0].id}")]
    facts += [(f"Run {run.id}", f"{run.started}: {run.command}") for run in runs]
    if len({run.environment.fingerprint for run in runs}) == 1:
        facts += [("Machine", machine(runs[0].environment)), ("Software", software(runs[0].environment))]
        return tuple(facts)
    for run in runs:
        facts += [(f"Machine of run {run.id}", f"{machine(run.environment)}; {software(run.environment)}")]
    facts.append(
        ("Beware", "machine, threads or torch differ between these runs, so their times do not compare the code")
    )
    return tuple(facts)


def _data(runs: Sequence[Run]) -> Table:
    """The rows of all runs under one another, with the run's id in front."""
    tables = [data_table(run.records, Baseline(run.records, run.baseline)) for run in runs]
    rows = tuple((run.id, *row) for run, table in zip(runs, tables, strict=True) for row in table.rows)
    return Table(title="", columns=(Column("run", "run"), *tables[0].columns), rows=rows)
