"""What each variant costs beside what it scores, and which another one beats in both."""

from __future__ import annotations

from collections.abc import Mapping

from afftool import units
from afftool.report.model import Column, Table
from afftool.study.report.show import percent
from afftool.study.results import Results
from afftool.study.significance import Summary, dominated


def cost_table(results: Results, summaries: Mapping[str, Summary]) -> Table:
    """Whole networks: parameters, MACs, and latencies where they were benched; a dominated variant says by which."""
    facts, latency = results.plan.facts, results.latency
    macs = {name: count for name in summaries if (count := facts[name].macs) is not None}
    timed = {name for name in summaries if name in latency}
    points = {}
    for name, summary in summaries.items():
        costs: list[float] = [facts[name].params]
        costs += [macs[name]] if len(macs) == len(summaries) else []
        if len(timed) == len(summaries):
            costs.append(latency[name].latency_ms)
        points[name] = (summary.mean, costs)
    losers = dominated(points)
    speeds = {name: [cell.images_per_s for cell in results.cells_of(name) if cell.images_per_s] for name in facts}
    base = facts[results.study.baseline].params
    rows = tuple(
        (
            variant.name,
            summaries[variant.name].mean if variant.name in summaries else None,
            facts[variant.name].params,
            facts[variant.name].params / base - 1,
            facts[variant.name].macs,
            latency[variant.name].latency_ms if variant.name in latency else None,
            sum(speeds[variant.name]) / len(speeds[variant.name]) if speeds[variant.name] else None,
            losers.get(variant.name),
        )
        for variant in results.study.variants
    )
    columns = (
        Column("variant", "variant"),
        Column("score", results.measure, percent, numeric=True),
        Column("params", "params", units.count, numeric=True),
        Column("params_vs_baseline", f"vs {results.study.baseline}", lambda v: f"{v:+.2%}", numeric=True),
        Column("macs", "MACs", units.scaled, numeric=True),
        Column("latency_ms", "latency", units.milliseconds, numeric=True),
        Column("images_per_s", "trained images/s", lambda v: f"{v:,.0f}", numeric=True),
        Column("dominated_by", "dominated by"),
    )
    note = (
        "Whole network, one image. Dominated: another variant scores at least as high, by the means, and costs no more."
    )
    if latency:
        note += f" Latency as benched: {next(iter(latency.values())).how}."
    return Table(title="Cost beside score", columns=columns, rows=rows, note=note).without_empty_columns()
