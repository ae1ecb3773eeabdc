"""Every variant's score: the mean over seeds with its interval, and seed by seed."""

from __future__ import annotations

from collections.abc import Mapping

from afftool.report.model import Column, Table
from afftool.study.report.show import percent
from afftool.study.results import Results
from afftool.study.significance import Summary


def scores_table(results: Results, summaries: Mapping[str, Summary]) -> Table:
    """The mean of every variant, with the seeds that have a score and those that failed."""
    columns = (
        Column("variant", "variant"),
        Column("fusion", "fusion"),
        Column("score", results.measure, percent, numeric=True),
        Column("low", "95% low", percent, numeric=True),
        Column("high", "95% high", percent, numeric=True),
        Column("seeds", "seeds", numeric=True),
        Column("failed", "failed", numeric=True),
        Column("note", "note"),
    )
    rows = []
    for variant in results.study.variants:
        summary = summaries.get(variant.name)
        failures = [cell for cell in results.cells_of(variant.name) if cell.status == "failed"]
        rows.append(
            (
                variant.name,
                variant.fusion,
                summary.mean if summary else None,
                summary.low if summary else None,
                summary.high if summary else None,
                len(summary.values) if summary else 0,
                len(failures),
                "; ".join(dict.fromkeys(cell.reason or "failed" for cell in failures)) or None,
            )
        )
    best = max((s.mean for s in summaries.values()), default=None)
    marked = frozenset((i, 2) for i, row in enumerate(rows) if best is not None and row[2] == best)
    note = (
        f"{results.measure} on the test split after the last epoch; the interval is Student's t over seeds. "
        "The highest mean is marked; whether it is higher than another is for the next table."
    )
    return Table(title="Scores", columns=columns, rows=tuple(rows), best=marked, note=note)


def seeds_table(results: Results, scores: Mapping[str, Mapping[int, float]]) -> Table:
    """Every score there is, so that nobody has to take the means on trust."""
    seeds = results.study.seeds
    columns = (Column("variant", "variant"), *(Column(f"seed {s}", f"seed {s}", percent, numeric=True) for s in seeds))
    rows = tuple((name, *(values.get(seed) for seed in seeds)) for name, values in scores.items())
    return Table(title="Every seed", columns=columns, rows=rows)
