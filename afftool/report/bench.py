"""One run's report: what was compared, on what machine, how; the results; what was not measured and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from afftool import units
from afftool.record import Record, Run
from afftool.report.columns import METRICS, SETTING, Metric, cell, setting_of
from afftool.report.document import data_table, document
from afftool.report.facts import machine, software
from afftool.report.memory import causes_table
from afftool.report.model import Bar, Chart, Column, Report, Table
from afftool.report.relative import Baseline, best_cells

BEST = "The best of the fusions measured alike is marked."
_HEADINGS = {"memory_format": "memory format"}


def bench_report(run: Run, details: Sequence[Table] = (), more: Mapping[str, Any] | None = None) -> Report:
    """The report of one run; every number in it is exact, and rounded only where a format prints it.

    `details` are further tables, put before what was not measured, `more` further keys of the document.
    """
    baseline = Baseline(run.records, run.baseline)
    measured = _in_groups([r for r in run.records if r.status == "ok"], baseline)
    rest = [r for r in run.records if r.status != "ok"]
    varying = _varying(run.records)
    tables = []
    if measured:
        tables.append(_results(measured, varying))
        further = (
            _relative(measured, varying, baseline),
            causes_table(measured, _key_columns(varying)),
            _incomplete(measured, varying),
            _unstable(measured, varying),
        )
        tables += [table for table in further if table]
    tables += details
    if rest:
        tables.append(_not_measured(rest, varying))
    return Report(
        title=_title(run),
        facts=_facts(run),
        tables=tuple(tables),
        data=data_table([*measured, *rest], baseline),
        document=document(run) | dict(more or {}),
        charts=_charts(measured, varying),
    )


def compact_table(run: Run) -> Table:
    """The measured rows with the few columns that fit a terminal, the latency against the baseline among them."""
    baseline = Baseline(run.records, run.baseline)
    measured = _in_groups([r for r in run.records if r.status == "ok"], baseline)
    table = _table("", measured, _varying(run.records), [m for m in METRICS if m.compact])
    table = dataclasses.replace(table, note=_note(table, measured))
    field = next((m for m in ("latency_ms", "flops") if any(cell(r, m) is not None for r in measured)), None)
    if field is None or baseline.text is None:
        return table
    heading = f"{next(m.column.heading for m in METRICS if m.column.name == field)} vs {baseline.text}"
    column = Column(f"{field}_vs_baseline", heading, units.ratio, numeric=True)
    rows = tuple((*row, baseline.ratio(r, field)) for row, r in zip(table.rows, measured, strict=True))
    return dataclasses.replace(table, columns=(*table.columns, column), rows=rows).without_empty_columns()


def caveats(run: Run) -> tuple[Table, ...]:
    """What a reader of the compact table must know: unsteady timings, and what was not measured and why."""
    varying = _varying(run.records)
    measured = [r for r in run.records if r.status == "ok"]
    rest = [r for r in run.records if r.status != "ok"]
    tables = (
        _incomplete(measured, varying),
        _unstable(measured, varying),
        _not_measured(rest, varying) if rest else None,
    )
    return tuple(table for table in tables if table)


def _title(run: Run) -> str:
    fusions = [f for f in dict.fromkeys(r.fusion for r in run.records) if f != run.baseline]
    named = ", ".join(fusions[:4]) + (f" and {len(fusions) - 4} more" if len(fusions) > 4 else "")
    if not named:
        return f"afftool bench: {run.baseline or 'nothing'}"
    return f"afftool bench: {named}" + (f" against {run.baseline}" if run.baseline else "")


def _facts(run: Run) -> tuple[tuple[str, str], ...]:
    records = run.records
    fusions = ", ".join(dict.fromkeys(r.fusion for r in records))
    constant = {name: cell(records[0], name) for name in SETTING if name not in _varying(records)} if records else {}
    swept = {name: list(dict.fromkeys(str(cell(r, name)) for r in records)) for name in _varying(records)}
    how = [f"{_HEADINGS.get(name, name)} {value}" for name, value in constant.items() if value is not None]
    how += [f"{_HEADINGS.get(name, name)} {', '.join(values)}" for name, values in swept.items()]
    facts = [
        ("Compared", fusions + (f"; the baseline is {run.baseline}" if run.baseline else "")),
        ("Machine", machine(run.environment)),
        ("Software", software(run.environment)),
        ("How", "; ".join(how)),
    ]
    backends = list(dict.fromkeys(r.backend for r in records if r.backend and r.status == "ok"))
    if backends:
        facts.append(("Backends", ", ".join(backends)))
    if any(r.latency_ms is not None for r in records):
        facts.append(("Latency", _latency_note(records)))
    started = f"run {run.id}, started {run.started}" + ("" if run.finished else ", not finished")
    facts.append(("Run", f"{started}: {run.command}"))
    return tuple(facts)


def _latency_note(records: Sequence[Record]) -> str:
    counts = [r.samples for r in records if r.samples]
    what = "median of a whole training step" if any(r.mode == "train" for r in records) else "median of a forward pass"
    spread = " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)})) if counts else ""
    samples = f" over {spread} timings" if counts else ""
    note = f"{what}{samples}, with the 95% interval of the median; outputs were compared with eager first"
    short = sum(r.stopped == "budget" for r in records)
    timed = sum(r.latency_ms is not None for r in records)
    return note + (f"; the budget ended {short} of {timed} rows before the precision was reached" if short else "")


def _in_groups(records: Sequence[Record], baseline: Baseline) -> list[Record]:
    """Rows that are compared with each other side by side, the baseline first; otherwise as they were measured."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault((setting_of(record), record.backend), []).append(record)
    return [record for group in groups.values() for record in sorted(group, key=lambda r: not baseline.is_baseline(r))]


def _varying(records: Sequence[Record]) -> list[str]:
    """The settings that differ between the rows; the others are said once, above the table."""
    return [name for name in SETTING if len({cell(r, name) for r in records}) > 1]


def _key_columns(varying: Sequence[str]) -> list[Column]:
    names = ["fusion", *varying, "backend"]
    return [Column(name, _HEADINGS.get(name, name), numeric=name in ("channels", "batch")) for name in names]


def _table(title: str, records: Sequence[Record], varying: Sequence[str], metrics: Sequence[Metric]) -> Table:
    keys = _key_columns(varying)
    columns = (*keys, *(m.column for m in metrics))
    rows = tuple(tuple(cell(record, column.name) for column in columns) for record in records)
    best = {
        (row, len(keys) + position)
        for position, metric in enumerate(metrics)
        if metric.better
        for row in best_cells(records, metric.column.name, metric.better)
    }
    return Table(title=title, columns=columns, rows=rows, best=frozenset(best)).without_empty_columns()


def _results(records: Sequence[Record], varying: Sequence[str]) -> Table:
    shown = [m for m in METRICS if not _says_nothing(m, records)]
    table = _table("Results", records, varying, shown)
    return dataclasses.replace(table, note=_note(table, records))


def _note(table: Table, records: Sequence[Record]) -> str:
    """What the marks mean, and what the counts lack."""
    uncounted = {op for r in records for op in (r.uncounted_ops or {})}
    notes = [BEST] if table.best else []
    if uncounted:
        notes.append(f"Not in the FLOPs and MACs, for want of a formula: {', '.join(sorted(uncounted))}.")
    return " ".join(notes)


def _says_nothing(metric: Metric, records: Sequence[Record]) -> bool:
    """Columns that repeat another or hold what is expected everywhere."""
    name = metric.column.name
    if name == "live_params":
        return all(r.live_params is None or r.live_params == r.params for r in records)
    if name in ("graph_breaks", "recompiles"):
        return all(not cell(r, name) for r in records)
    return False


def _relative(records: Sequence[Record], varying: Sequence[str], baseline: Baseline) -> Table | None:
    """Every cost as a multiple of the baseline's; None where there is nothing to compare."""
    others = [r for r in records if not baseline.is_baseline(r)]
    if baseline.text is None or not others:
        return None
    keys = _key_columns(varying)
    columns = list(keys)
    values: list[list[Any]] = [[cell(r, c.name) for c in keys] for r in others]
    for metric in (m for m in METRICS if m.relative):
        columns.append(Column(metric.column.name, metric.column.heading, units.ratio, numeric=True))
        for row, record in zip(values, others, strict=True):
            row.append(baseline.ratio(record, metric.column.name))
        if metric.column.name == "latency_ms":
            columns.append(Column("latency_ratio_interval", "95% interval", numeric=True))
            for row, record in zip(values, others, strict=True):
                interval = baseline.ratio_interval(record)
                row.append(" to ".join(units.ratio(end) for end in interval) if interval else None)
    if all(value is None for row in values for value in row[len(keys) :]):
        return None
    note = f"1.00x is {baseline.text} in the same case under the same backend; empty where its own value is 0."
    rows = tuple(tuple(row) for row in values)
    table = Table(title=f"Relative to {baseline.text}", columns=tuple(columns), rows=rows, note=note)
    return table.without_empty_columns()


def _incomplete(records: Sequence[Record], varying: Sequence[str]) -> Table | None:
    """What measured rows lack and why, with the rows it concerns; None if they lack nothing."""
    found: dict[str, list[str]] = {}
    for record in (r for r in records if r.reason):
        found.setdefault(record.reason or "", []).append(_row_name(record, varying))
    rows = tuple((reason, _all_or_some(names, len(records))) for reason, names in found.items())
    columns = (Column("reason", "what is missing"), Column("rows", "rows"))
    return Table(title="Measured in part", columns=columns, rows=rows) if rows else None


def _row_name(record: Record, varying: Sequence[str]) -> str:
    cells = (cell(record, column.name) for column in _key_columns(varying))
    return " ".join(str(value) for value in cells if value is not None)


def _all_or_some(names: Sequence[str], total: int) -> str:
    return f"all {total}" if len(names) == total else ", ".join(names)


def _unstable(records: Sequence[Record], varying: Sequence[str]) -> Table | None:
    """What disturbed the timing, with advice and the rows it concerns; None if nothing did."""
    timed = [r for r in records if r.latency_ms is not None]
    found: dict[tuple[str, str], list[str]] = {}
    for record in timed:
        for what, advice in (record.instability or {}).items():
            found.setdefault((what, advice), []).append(_row_name(record, varying))
    rows = tuple((what, advice, _all_or_some(names, len(timed))) for (what, advice), names in found.items())
    columns = (Column("instability", "disturbed by"), Column("advice", "what to do"), Column("rows", "rows"))
    return Table(title="Unsteady timings", columns=columns, rows=rows) if rows else None


def _not_measured(records: Sequence[Record], varying: Sequence[str]) -> Table:
    columns = (*_key_columns(varying), Column("status", "status"), Column("reason", "reason"))
    rows = tuple(tuple(cell(r, c.name) for c in columns) for r in records)
    return Table(title="Not measured", columns=columns, rows=rows).without_empty_columns()


def _charts(records: Sequence[Record], varying: Sequence[str]) -> tuple[Chart, ...]:
    bars = tuple(
        Bar(
            ", ".join(str(cell(r, c.name)) for c in _key_columns(varying) if cell(r, c.name) is not None),
            r.latency_ms,
            r.latency_low_ms,
            r.latency_high_ms,
        )
        for r in records
        if r.latency_ms is not None
    )
    return (Chart("Latency, with the 95% interval of the median", units.milliseconds, bars),) if len(bars) > 1 else ()
