"""The CSV: a row a variant, exact numbers; every other pair in columns named after what it is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from afftool.report.model import Column, Table
from afftool.study.results import Results
from afftool.study.significance import Comparison, Summary


def data_table(results: Results, summaries: Mapping[str, Summary], comparisons: Sequence[Comparison]) -> Table:
    """One row a variant with exact numbers, its comparison with its baseline, every seed's score, and further pairs.

    A pair stands once, in the row of its `variant`.
    """
    seeds = results.study.seeds
    baselines = dict(results.study.comparisons())
    by_variant = {c.variant: c for c in comparisons if baselines.get(c.variant) == c.against}
    compared = [f.name for f in dataclasses.fields(Comparison) if f.name not in ("variant", "seeds")]
    renamed = {"low": "difference_low", "high": "difference_high"}
    further = {(c.variant, c.against): c for c in comparisons if by_variant.get(c.variant) is not c}
    others = list(dict.fromkeys(against for _, against in further))
    apart = [name for name in compared if name != "against"]
    names = (
        *("study", "variant", "fusion", "host", "data", "epochs", "measure"),
        *("score", "low", "high", "seeds", "failed"),
        *("params", "macs", "latency_ms"),
        *(renamed.get(name, name) for name in compared),
        *(f"seed_{seed}" for seed in seeds),
        *(f"{renamed.get(name, name)}_vs_{other}" for other in others for name in apart),
    )
    rows = []
    for variant in results.study.variants:
        summary, facts = summaries.get(variant.name), results.plan.facts[variant.name]
        comparison = by_variant.get(variant.name)
        failed = sum(cell.status == "failed" for cell in results.cells_of(variant.name))
        timed = results.latency.get(variant.name)
        rows.append(
            (
                results.study.name,
                variant.name,
                variant.fusion,
                facts.host,
                results.study.data,
                results.study.recipe_of(variant).epochs,
                results.measure,
                summary.mean if summary else None,
                summary.low if summary else None,
                summary.high if summary else None,
                len(summary.values) if summary else 0,
                failed,
                facts.params,
                facts.macs,
                timed.latency_ms if timed else None,
                *(getattr(comparison, name) if comparison else None for name in compared),
                *((summary.values.get(seed) if summary else None) for seed in seeds),
                *(getattr(further.get((variant.name, other)), name, None) for other in others for name in apart),
            )
        )
    return Table(title="", columns=tuple(Column(name, name) for name in names), rows=tuple(rows))
