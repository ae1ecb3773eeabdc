"""A study exactly: a row a variant for CSV, and the JSON document with the study as planned and all that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from afftool.record import SCHEMA, Environment
from afftool.report.exact import as_they_are
from afftool.study.front import Place
from afftool.study.results import Results
from afftool.study.significance import Comparison, Summary

if TYPE_CHECKING:
    import pandas

_COMPARED = [f.name for f in dataclasses.fields(Comparison) if f.name not in ("variant", "seeds")]
_RENAMED = {
    "low": "difference_low",
    "high": "difference_high",
    "failed": "failed_pairs",
    "collapsed": "collapsed_pairs",
}


def exact_rows(
    results: Results,
    summaries: Mapping[str, Summary],
    comparisons: Sequence[Comparison],
    places: Mapping[str, Place],
) -> pandas.DataFrame:
    """One row a variant with exact numbers, its comparison with its baseline, every seed's score, and further pairs.

    A pair stands once, in the row of its `variant`; what it is compared with is in the names of its columns.
    """
    baselines = dict(results.study.comparisons())
    by_variant = {c.variant: c for c in comparisons if baselines.get(c.variant) == c.against}
    further = [c for c in comparisons if by_variant.get(c.variant) is not c]
    rows: dict[str, dict[str, object]] = {}
    for variant in results.study.variants:
        summary, facts = summaries.get(variant.name), results.plan.facts[variant.name]
        timed = results.latency.get(variant.name)
        rows[variant.name] = {
            "study": results.study.name,
            "variant": variant.name,
            "fusion": variant.fusion,
            "host": facts.host,
            "data": results.study.data,
            "epochs": results.study.recipe_of(variant).epochs,
            "measure": results.measure,
            "score": summary.mean if summary else None,
            "low": summary.low if summary else None,
            "high": summary.high if summary else None,
            "median": summary.median if summary else None,
            "interval": summary.interval if summary else None,
            "seeds": len(summary.values) if summary else 0,
            "failed": sum(cell.status == "failed" for cell in results.cells_of(variant.name)),
            "params": facts.params,
            "macs": facts.macs,
            "latency_ms": timed.latency_ms if timed else None,
            **dataclasses.asdict(places.get(variant.name, Place())),
            **_compared(by_variant.get(variant.name)),
            **{f"seed_{seed}": summary.values.get(seed) if summary else None for seed in results.study.seeds},
        }
    others = dict.fromkeys(c.against for c in further)
    apart = [name for name in _compared(None) if name != "against"]
    names = [*next(iter(rows.values())), *(f"{name}_vs_{other}" for other in others for name in apart)]
    for c in further:
        rows[c.variant] |= {f"{name}_vs_{c.against}": value for name, value in _compared(c).items()}
    return as_they_are(rows.values(), names)


def _compared(comparison: Comparison | None) -> dict[str, object]:
    """Every field of a comparison under the name of its column."""
    return {_RENAMED.get(name, name): getattr(comparison, name, None) for name in _COMPARED}


def study_document(
    results: Results,
    environment: Environment,
    summaries: Mapping[str, Summary],
    comparisons: Sequence[Comparison],
    places: Mapping[str, Place],
) -> dict[str, Any]:
    """What `--json` prints: comparisons and cells with every field they have."""
    return {
        "schema": SCHEMA,
        "environment": environment.to_dict(),
        "study": results.plan.to_dict(),
        "variants": {
            name: {
                "mean": s.mean,
                "low": s.low,
                "high": s.high,
                "median": s.median,
                "interval": s.interval,
                "seeds": {str(k): v for k, v in s.values.items()},
                **dataclasses.asdict(places[name]),
            }
            for name, s in summaries.items()
        },
        "looks": [list(look) for look in results.looks],
        "comparisons": [dataclasses.asdict(c) for c in comparisons],
        "cells": [
            {"variant": name, "seed": seed, **cell.to_dict()} for (name, seed), cell in sorted(results.cells.items())
        ],
    }
