"""One run's report: what was compared, on what machine, how; the results; what was not measured and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from afftool import units
from afftool.measure.cost.reading import formula_wanted
from afftool.record import Record, Run
from afftool.report.allocators import freed_memory, in_words, worth_showing
from afftool.report.breakdown import causes_table
from afftool.report.columns import ALLOCATOR, BACKEND, FUSION, QUANTITIES, SETTING, Quantity, alike, setting_of, share
from afftool.report.exact import document
from afftool.report.lines import machine, software
from afftool.report.relative import Baseline, best_of_group, exact_rows
from afftool.report.usable import advice, as_told, unusable
from afftool.tables import Bar, Chart, Column, Report, Table

if TYPE_CHECKING:
    import pandas

BEST = "The best of the fusions measured alike is marked."
NAMED = 6
"""So many rows are named where something concerns several; of more, the others are counted."""
Keys = Sequence[Column[Record]]
"""The columns that tell a table's rows apart."""


def bench_report(run: Run, details: Sequence[Table] = (), more: Mapping[str, Any] | None = None) -> Report:
    """The report of one run; every number in it is exact, and rounded only where a format prints it.

    `details` are further tables, put before what was not measured, `more` further keys of the document.
    """
    baseline = Baseline(run.records, run.baseline)
    exact = _in_groups([r for r in run.records if r.status == "ok"], baseline)
    measured = [as_told(record) for record in exact]
    rest = [r for r in run.records if r.status != "ok"]
    keys = _keys(run.records)
    tables = []
    if measured:
        shown = worth_showing(measured)
        tables.append(_results(shown, keys))
        further = (
            freed_memory(measured),
            _relative(shown, keys, baseline),
            causes_table(shown, keys),
            _incomplete(exact, keys),
            _not_finite(measured, keys),
            _unstable(measured, keys),
            _writing(measured),
        )
        tables += [table for table in further if table]
    tables += details
    if named := _global_state(run.records, keys):
        tables.append(named)
    if rest:
        tables.append(_not_measured(rest, keys))
    return Report(
        title=_title(run),
        facts=_facts(run),
        tables=tuple(tables),
        data=exact_rows([*exact, *rest], baseline),
        document=document(run) | dict(more or {}),
        charts=_charts(worth_showing(measured), keys),
    )


def compact_table(run: Run) -> Table:
    """The measured rows with the few columns that fit a terminal, the latency against the baseline among them."""
    baseline = Baseline(run.records, run.baseline)
    exact = _in_groups([r for r in run.records if r.status == "ok"], baseline)
    measured = worth_showing([as_told(record) for record in exact])
    table = _table("", measured, _keys(run.records), [q for q in QUANTITIES if q.compact])
    table = dataclasses.replace(table, note=_note(table, measured))
    named = {q.name: q for q in QUANTITIES}
    known = (named[name] for name in ("latency_ms", "flops") if any(named[name].value(r) is not None for r in measured))
    cost = next(known, None)
    if cost is None or baseline.text is None:
        return table
    heading = f"{cost.heading} vs {baseline.text}"
    column: Column[Any] = Column(f"{cost.name}_vs_baseline", heading, units.ratio, numeric=True)
    return table.with_column(column, _cells(baseline.ratios(measured)[cost.name])).without_empty_columns()


def caveats(run: Run) -> tuple[Table, ...]:
    """What a reader of the compact table must know: values that are none, unsteady timings, what failed, and more."""
    keys = _keys(run.records)
    measured = [r for r in run.records if r.status == "ok"]
    rest = [r for r in run.records if r.status != "ok"]
    tables = (
        freed_memory([as_told(r) for r in measured]),
        _incomplete(measured, keys),
        _not_finite(measured, keys),
        _unstable([as_told(r) for r in measured], keys),
        _writing(measured),
        _global_state(run.records, keys),
        _not_measured(rest, keys) if rest else None,
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
    how: list[str] = []
    swept: list[str] = []
    for column in SETTING if records else ():
        values = list(dict.fromkeys(column.value(r) for r in records))
        if len(values) > 1:
            swept.append(f"{column.heading} {', '.join(map(str, values))}")
        elif values[0] is not None:
            how.append(f"{column.heading} {values[0]}")
    facts = [
        ("Compared", fusions + (f"; the baseline is {run.baseline}" if run.baseline else "")),
        ("Machine", machine(run.environment)),
        ("Software", software(run.environment)),
        ("How", "; ".join([*how, *swept])),
    ]
    backends = list(dict.fromkeys(r.backend for r in records if r.backend and r.status == "ok"))
    if backends:
        facts.append(("Backends", ", ".join(backends)))
    if any(r.latency_ms is not None for r in records):
        facts.append(("Latency", _latency_note(records)))
    if allocator := in_words(records):
        facts.append(("Freed memory", allocator))
    started = f"run {run.id}, started {run.started}" + ("" if run.finished else ", not finished")
    facts.append(("Run", f"{started}: {run.command}"))
    return tuple(facts)


def _latency_note(records: Sequence[Record]) -> str:
    counts = [r.samples for r in records if r.samples]
    what = "median of a whole training step" if any(r.mode == "train" for r in records) else "median of a forward pass"
    spread = " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)})) if counts else ""
    samples = f" over {spread} timings" if counts else ""
    several = any((r.processes or 1) > 1 for r in records)
    interval = "an interval over the 95% intervals of its processes" if several else "the 95% interval of the median"
    note = f"{what}{samples}, with {interval}; outputs were compared with eager first"
    short = sum(r.stopped == "budget" for r in records)
    timed = sum(r.latency_ms is not None for r in records)
    return note + (f"; the budget ended {short} of {timed} rows before the precision was reached" if short else "")


def _in_groups(records: Sequence[Record], baseline: Baseline) -> list[Record]:
    """Rows that are compared with each other side by side, the baseline first; otherwise as they were measured."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault((setting_of(record), record.backend, record.allocator), []).append(record)
    return [record for group in groups.values() for record in sorted(group, key=lambda r: not baseline.is_baseline(r))]


def _keys(records: Sequence[Record]) -> Keys:
    """Fusion, backend and the settings that differ between the rows; the others are said once, above the table."""
    shared = alike(records)
    varying = [column for column in SETTING if column.name not in shared] if records else []
    regimes = {ALLOCATOR.value(r) for r in records} - {None}
    return (FUSION, *varying, BACKEND, *([ALLOCATOR] if len(regimes) > 1 else []))


def _table(title: str, records: Sequence[Record], keys: Keys, quantities: Sequence[Quantity]) -> Table:
    table = Table.of(title, records, (*keys, *quantities))
    best = best_of_group(records)
    for name in (q.name for q in quantities if q.better):
        table = table.mark(name, best[name].to_numpy().nonzero()[0].tolist())
    return table.without_empty_columns()


def _results(records: Sequence[Record], keys: Keys) -> Table:
    shown = [q for q in QUANTITIES if not _says_nothing(q, records)]
    table = _table("Results", records, keys, shown)
    return dataclasses.replace(table, note=_note(table, records))


def _note(table: Table, records: Sequence[Record]) -> str:
    """What the marks mean, and what the counts lack."""
    uncounted = {op for r in records for op in (r.uncounted_ops or {})}
    notes = [BEST] if table.best else []
    if uncounted:
        notes.append(f"Not in the FLOPs and MACs, for want of a formula: {', '.join(sorted(uncounted))}.")
        notes.append(formula_wanted(uncounted))
    return " ".join(notes)


def _says_nothing(quantity: Quantity, records: Sequence[Record]) -> bool:
    """Columns that repeat another or hold what is expected everywhere."""
    if quantity.name == "live_params":
        return all(r.live_params is None or r.live_params == r.params for r in records)
    expected = ("graph_breaks", "recompiles", "skipped_graphs")
    return quantity.name in expected and not any(quantity.value(r) for r in records)


def _relative(records: Sequence[Record], keys: Keys, baseline: Baseline) -> Table | None:
    """Every cost as a multiple of the baseline's; None where there is nothing to compare."""
    others = [r for r in records if not baseline.is_baseline(r)]
    if baseline.text is None or not others:
        return None
    ratios = baseline.ratios(others)
    note = f"1.00x is {baseline.text} in the same case under the same backend; empty where its own value is 0."
    table = Table.of(f"Relative to {baseline.text}", others, keys, note)
    for cost in (q for q in QUANTITIES if q.relative):
        column: Column[Record] = Column(cost.name, cost.heading, units.ratio, numeric=True)
        table = table.with_column(column, _cells(ratios[cost.name]))
        if cost.name == "latency_ms":
            column = Column("latency_ratio_interval", "95% interval", numeric=True)
            intervals = (baseline.ratio_interval(r) for r in others)
            table = table.with_column(column, (_interval(ends) for ends in intervals))
    return None if ratios.isna().all(axis=None) else table.without_empty_columns()


def _interval(ends: tuple[float, float] | None) -> str | None:
    return " to ".join(units.ratio(end) for end in ends) if ends else None


def _cells(column: pandas.Series) -> list[Any]:
    """A frame's column as the cells of a table."""
    return [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]


def _incomplete(records: Sequence[Record], keys: Keys) -> Table | None:
    """What measured rows lack and why, with the rows it concerns; None if they lack nothing."""
    found: dict[str, list[str]] = {}
    for record in (r for r in records if r.reason):
        found.setdefault(record.reason or "", []).append(_row_name(record, keys))
    wide: dict[str, list[Record]] = {}
    for record in records:
        if why := unusable(record):
            wide.setdefault(why, []).append(record)
    for why, rows in wide.items():
        found[f"latency not measured: {why}; {advice(rows)}"] = [_row_name(record, keys) for record in rows]
    columns: tuple[Column[tuple[str, list[str]]], ...] = (
        Column("reason", "what is missing", get=lambda item: item[0]),
        Column("rows", "rows", get=lambda item: _all_or_some(item[1], len(records))),
    )
    return Table.of("Measured in part", found.items(), columns) if found else None


def _row_name(record: Record, keys: Keys, *, between: str = " ") -> str:
    return between.join(str(value) for column in keys if (value := column.value(record)) is not None)


def _all_or_some(names: Sequence[str], total: int) -> str:
    if len(names) == total:
        return f"all {total}"
    hidden = len(names) - NAMED
    return ", ".join(names) if hidden <= 1 else f"{', '.join(names[:NAMED])} and {hidden} more"


def _not_finite(records: Sequence[Record], keys: Keys) -> Table | None:
    """The rows that give infinities or NaNs, with what to do, the worst share by dtype; None if there are none."""
    found: dict[str, list[Record]] = {}
    for record in (r for r in records if r.nonfinite_share):
        found.setdefault(record.dtype, []).append(record)
    columns: tuple[Column[tuple[str, list[Record]]], ...] = (
        Column("values", "values", get=lambda item: f"up to {share(max(r.nonfinite_share or 0 for r in item[1]))}"),
        Column("advice", "what to do", get=lambda item: _FINITE.get(item[0], _UNDEFINED)),
        Column("rows", "rows", get=lambda item: _all_or_some([_row_name(r, keys) for r in item[1]], len(records))),
    )
    note = "Infinities and NaNs among outputs and gradients: what such a row takes is no result, and none is marked."
    return Table.of("Not finite", found.items(), columns, note) if found else None


_UNDEFINED = "look for a division by 0, a root or a logarithm of what is not positive, an exp of what is large"
_FINITE = {"float16": "float16 ends at 65,504: take bfloat16, or work out sums, squares and exp in float32"}


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
        names = _all_or_some([_row_name(record, keys) for record in rows], len(records))
        several = len({_told(kind, record) for record in rows}) > 1
        return f"{names}; worst in {_row_name(_worst(kind, rows), keys)}" if several else names

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


def _global_state(records: Sequence[Record], keys: Keys) -> Table | None:
    """What files of the user's set for the whole process, and the rows made of them; None if nothing."""
    found: dict[str, list[str]] = {}
    for record in records:
        if record.global_state:
            what = "; ".join(f"{name}: {said}" for name, said in record.global_state.items())
            found.setdefault(what, []).append(_row_name(record, keys))
    columns: tuple[Column[tuple[str, list[str]]], ...] = (
        Column("global_state", "what it sets", get=lambda item: item[0]),
        Column("rows", "rows", get=lambda item: _all_or_some(item[1], len(records))),
    )
    note = "A file of your own sets this for all that runs in its process; no other row ran under it."
    return Table.of("Set for the whole process, and put back", found.items(), columns, note) if found else None


def _writing(records: Sequence[Record]) -> Table | None:
    """Which fusions write into their inputs; None if none does."""
    found = {(r.fusion, " and ".join(r.writes_inputs)): None for r in records if r.writes_inputs}
    columns: tuple[Column[tuple[str, str]], ...] = (
        Column("fusion", "fusion", get=lambda item: item[0]),
        Column("writes_inputs", "writes into its input", get=lambda item: item[1]),
    )
    note = "Each step saw the same values: they were put back before it, which no number here holds."
    return dataclasses.replace(Table.of("Inputs written into", found, columns), note=note) if found else None


def _not_measured(records: Sequence[Record], keys: Keys) -> Table:
    columns: Keys = (*keys, Column("status", "status"), Column("reason", "reason"))
    return Table.of("Not measured", records, columns).without_empty_columns()


def _charts(records: Sequence[Record], keys: Keys) -> tuple[Chart, ...]:
    bars = tuple(
        Bar(
            _row_name(r, keys, between=", "),
            r.latency_ms,
            r.latency_low_ms,
            r.latency_high_ms,
        )
        for r in records
        if r.latency_ms is not None
    )
    return (Chart("Latency, with the 95% interval of the median", units.milliseconds, bars),) if len(bars) > 1 else ()
