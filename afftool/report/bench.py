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
from afftool.report.caveats import of_results, of_run
from afftool.report.columns import QUANTITIES, SETTING, Keys, Quantity, keys_of, row_name, setting_of
from afftool.report.context import alone_table, apart, cost_in_context
from afftool.report.exact import document
from afftool.report.lines import machine, software
from afftool.report.relative import Baseline, best_of_group, exact_rows
from afftool.report.usable import as_told
from afftool.tables import Bar, Chart, Column, Report, Table
from afftool.words import some_of

if TYPE_CHECKING:
    import pandas

BEST = "The best of the fusions measured alike is marked."


def bench_report(run: Run, details: Sequence[Table] = (), more: Mapping[str, Any] | None = None) -> Report:
    """The report of one run; every number in it is exact, and rounded only where a format prints it.

    `details` are further tables, put before what concerns all rows, `more` further keys of the document.
    """
    baseline = Baseline(run.records, run.baseline)
    exact = _in_groups([r for r in run.records if r.status == "ok"], baseline)
    measured = [as_told(record) for record in exact]
    rest = [r for r in run.records if r.status != "ok"]
    asked, _ = apart(run.records)
    keys, all_keys = keys_of(asked), keys_of(run.records)
    context = cost_in_context(run.records)
    tables = []
    if measured:
        shown = worth_showing(apart(measured)[0])
        tables.append(_results(shown, keys))
        further = (
            context,
            alone_table(run.records),
            freed_memory(measured),
            _relative(shown, keys, baseline),
            causes_table(shown, keys),
            *of_results(measured, all_keys),
        )
        tables += [table for table in further if table]
    tables += [*details, *of_run(run.records, all_keys)]
    return Report(
        title=_title(run),
        facts=_facts(run),
        tables=tuple(tables),
        data=exact_rows([*exact, *rest], baseline),
        document=document(run) | ({"in_context": context.named_rows()} if context else {}) | dict(more or {}),
        charts=_charts(worth_showing(apart(measured)[0]), keys),
    )


def compact_table(run: Run) -> Table:
    """The measured rows with the few columns that fit a terminal, the latency against the baseline among them."""
    baseline = Baseline(run.records, run.baseline)
    asked, _ = apart(run.records)
    exact = _in_groups([r for r in asked if r.status == "ok"], baseline)
    measured = worth_showing([as_told(record) for record in exact])
    table = _table("", measured, keys_of(asked), [q for q in QUANTITIES if q.compact])
    table = dataclasses.replace(table, note=_note(table, measured))
    named = {q.name: q for q in QUANTITIES}
    known = (named[name] for name in ("latency_ms", "flops") if any(named[name].value(r) is not None for r in measured))
    cost = next(known, None)
    if cost is None or baseline.text is None:
        return table
    heading = f"{cost.heading} vs {baseline.text}"
    column: Column[Any] = Column(f"{cost.name}_vs_baseline", heading, units.ratio, numeric=True)
    return table.with_column(column, _cells(baseline.ratios(measured)[cost.name])).without_empty_columns()


def _title(run: Run) -> str:
    fusions = [f for f in dict.fromkeys(r.fusion for r in apart(run.records)[0]) if f != run.baseline]
    named = some_of(fusions, 4)
    if not named:
        return f"afftool bench: {run.baseline or 'nothing'}"
    return f"afftool bench: {named}" + (f" against {run.baseline}" if run.baseline else "")


def _facts(run: Run) -> tuple[tuple[str, str], ...]:
    records, _ = apart(run.records)
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
    several = [r for r in records if (r.processes or 1) > 1]
    if not several:
        interval = "the 95% interval of the median in one process"
    elif all(r.single_steps is None for r in several):  # older records
        interval = "an interval over the 95% intervals of its processes"
    else:
        what, interval = f"mean over processes of the {what}", "Student's 95% interval of its processes"
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


def _charts(records: Sequence[Record], keys: Keys) -> tuple[Chart, ...]:
    bars = tuple(
        Bar(
            row_name(r, keys, between=", "),
            r.latency_ms,
            r.latency_low_ms,
            r.latency_high_ms,
        )
        for r in records
        if r.latency_ms is not None
    )
    return (Chart("Latency, with its 95% interval", units.milliseconds, bars),) if len(bars) > 1 else ()
