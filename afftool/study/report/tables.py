"""A study's tables: scores, differences, cost, object sizes, the signal, the paper's numbers, every seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from afftool import units
from afftool.study import front, published
from afftool.study.flips import FEWEST
from afftool.study.ranking import FEWEST as RANKED
from afftool.study.ranking import agreement
from afftool.study.report.words import counted, interval_name, p_value, percent, points, points_plain
from afftool.study.results import Results
from afftool.study.significance import Comparison, Summary
from afftool.study.spec import Variant
from afftool.tables import Column, Table


def scores_table(results: Results, summaries: Mapping[str, Summary]) -> Table:
    """The median of every variant and what is known of it, its mean, its seeds with a score and those that failed."""

    def failures(variant: Variant) -> list[str]:
        cells = results.cells_of(variant.name)
        return [cell.reason or "failed" for cell in cells if cell.status == "failed"]

    def seeds(variant: Variant) -> int:
        return len(summaries[variant.name].values) if variant.name in summaries else 0

    known = interval_name(summaries)
    low, high = ("lowest", "highest") if known == "range" else ("95% low", "95% high")
    columns: tuple[Column[Variant], ...] = (
        _variant(),
        Column("fusion", "fusion"),
        Column("median", f"{results.measure}, median", percent, numeric=True, get=_summarized(summaries, "median")),
        Column("low", low, percent, numeric=True, get=_summarized(summaries, "low")),
        Column("high", high, percent, numeric=True, get=_summarized(summaries, "high")),
        Column("score", "mean", percent, numeric=True, get=_summarized(summaries, "mean")),
        Column("seeds", "seeds", numeric=True, get=seeds),
        Column("failed", "failed", numeric=True, get=lambda variant: len(failures(variant))),
        Column("note", "note", get=lambda variant: "; ".join(dict.fromkeys(failures(variant))) or None),
    )
    note = (
        f"{results.measure} on the test split after the last epoch; {_SCORES[known]}. A failed run counts in the "
        "median as the lowest, and not in the mean. The highest median is marked; whether it is higher than another is "
        "for the next table."
    )
    return Table.of("Scores", results.study.variants, columns, note).mark_best("median", "more")


_SCORES = {
    "range": "below six runs there is no 95% interval, and lowest and highest are those of the runs",
    "95% interval": "the interval is of the median over seeds, by order statistics, and holds for scores of any kind",
}


def _variant() -> Column[Variant]:
    return Column("variant", "variant", get=lambda variant: variant.name)


def _summarized(summaries: Mapping[str, Summary], field: str) -> Callable[[Variant], float | None]:
    """Gets a field of a variant's summary; None where no seed has a score."""
    return lambda variant: getattr(summaries.get(variant.name), field, None)


def seeds_table(results: Results, scores: Mapping[str, Mapping[int, float]]) -> Table:
    """Every score there is, so that nobody has to take the means on trust."""

    def score(seed: int, variant: Variant) -> float | None:
        return scores[variant.name].get(seed)

    columns: list[Column[Variant]] = [_variant()]
    for seed in results.study.seeds:
        columns.append(Column(f"seed {seed}", f"seed {seed}", percent, numeric=True, get=partial(score, seed)))
    return Table.of("Every seed", results.study.variants, columns)


def differences_table(comparisons: Sequence[Comparison]) -> Table:
    """One row a comparison."""

    def detectable(c: Comparison) -> tuple[float, float] | None:
        return None if c.detectable_low is None or c.detectable_high is None else (c.detectable_low, c.detectable_high)

    columns: tuple[Column[Comparison], ...] = (
        Column("variant", "variant"),
        Column("against", "against"),
        Column("difference", "difference (points)", points, numeric=True),
        Column("typical", "robust", points, numeric=True),
        Column("low", "95% low", points, numeric=True),
        Column("high", "95% high", points, numeric=True),
        Column("effect", "effect size", lambda v: f"{v:+.2f}", numeric=True),
        Column("p", "p", p_value, numeric=True),
        Column("p_corrected", "p, corrected", p_value, numeric=True),
        Column("detectable", "smallest detectable", _apart, numeric=True, get=detectable),
        Column("claim", "claim"),
    )
    count = counted(len(comparisons), "comparison")
    note = (
        f"Paired by seed. p: sign-flip test; corrected: joint flips of {count}, by the largest |t|. The intervals of "
        "all hold together with 95%, and 0 lies outside where a difference is claimed. Robust: Hodges-Lehmann "
        "estimate, over all runs. Effect size: mean over deviation of the paired differences. Smallest detectable: the "
        "true difference that four in five such studies show, and how well so few seeds know it (95%)."
    )
    return Table.of("Differences", comparisons, columns, note)


def _apart(ends: tuple[float, float]) -> str:
    return f"{points_plain(ends[0])} to {points_plain(ends[1])}"


def cost_table(results: Results, summaries: Mapping[str, Summary], places: Mapping[str, front.Place]) -> Table:
    """Whole networks: parameters, MACs, latencies where they were benched, speed, and which are worth their cost."""
    facts, latency = results.plan.facts, results.latency
    base = facts[results.study.baseline].params

    def speed(variant: Variant) -> float | None:
        known = [cell.images_per_s for cell in results.cells_of(variant.name) if cell.images_per_s]
        return sum(known) / len(known) if known else None

    def place(field: str) -> Callable[[Variant], object]:
        return lambda variant: getattr(places.get(variant.name), field, None)

    def milliseconds(variant: Variant) -> float | None:
        return latency[variant.name].latency_ms if variant.name in latency else None

    def more_params(variant: Variant) -> float:
        return facts[variant.name].params / base - 1

    columns: tuple[Column[Variant], ...] = (
        _variant(),
        Column("score", results.measure, percent, numeric=True, get=_summarized(summaries, "mean")),
        Column("params", "params", units.count, numeric=True, get=lambda variant: facts[variant.name].params),
        Column("params_vs_baseline", f"vs {results.study.baseline}", "{:+.2%}".format, numeric=True, get=more_params),
        Column("macs", "MACs", units.scaled, numeric=True, get=lambda variant: facts[variant.name].macs),
        Column("latency_ms", "latency", units.milliseconds, numeric=True, get=milliseconds),
        Column("images_per_s", "trained images/s", units.count, numeric=True, get=speed),
        Column("dominated_by", "dominated by", get=place("dominated_by")),
        Column("on_front", "on the front", "{:.0%}".format, numeric=True, get=place("on_front")),
    )
    note = (
        "Whole network, one image. Dominated: another variant is better, corrected for "
        f"{counted(math.comb(len(places), 2), 'pair')}, and worse in no cost that is known of both, measured speed "
        "included. "
    )
    if any(found.on_front is not None for found in places.values()):
        note += (
            f"On the front: in so many of {front.RESAMPLES:,} resamples of the seeds (the same ones for all variants, "
            "scores and measured speeds together) no other has at least the mean score at no more of any cost and is "
            "better in one. Of variants that cost alike one is there at a time, and a small share is no proof that "
            "another is the better one. A failed run counts as a score of 0 in them."
        )
    else:
        note += f"Who is on the front is told from {FEWEST} seeds on that all variants have."
    if latency:
        note += f" Latency as benched: {next(iter(latency.values())).how}."
    return Table.of("Cost beside score", results.study.variants, columns, note).without_empty_columns()


def bands_table(results: Results) -> Table | None:
    """The mean of every variant in each band; None where no cell has bands."""
    bands = list(dict.fromkeys(band for cell in results.cells.values() for band in cell.bands))
    if not bands:
        return None

    def mean(band: str, variant: Variant) -> float | None:
        scores = [cell.bands[band] for cell in results.cells_of(variant.name) if band in cell.bands]
        return sum(scores) / len(scores) if scores else None

    columns = [_variant(), *(Column(band, band, percent, numeric=True, get=partial(mean, band)) for band in bands)]
    return Table.of(
        f"{results.measure.capitalize() if results.measure == 'accuracy' else results.measure} by object size",
        results.study.variants,
        columns,
        "Means over seeds; for reading, not for claims: these differences are not tested.",
    )


def signal_table(results: Results) -> Table | None:
    """The mean of every variant at each fusion, in the order of the forward pass; None where no one asked."""
    if not results.study.signal:
        return None

    def means(variant: Variant) -> list[float]:
        mine = [cell.signal for cell in results.cells_of(variant.name) if cell.signal]
        return [sum(values) / len(values) for values in zip(*mine, strict=True)]

    found = [(variant, signal) for variant in results.study.variants if (signal := means(variant))]
    columns: tuple[Column[tuple[Variant, list[float]]], ...] = (
        Column("variant", "variant", get=lambda row: row[0].name),
        Column("first", "first fusion", units.significant, numeric=True, get=lambda row: row[1][0]),
        Column("last", "last fusion", units.significant, numeric=True, get=lambda row: row[1][-1]),
        Column("growth", "growth", units.ratio, numeric=True, get=lambda row: _growth(row[1])),
        Column("path", "all fusions, in order", get=lambda row: " ".join(map(units.significant, row[1]))),
    )
    note = "Root mean square of what each fusion puts out, before training, on training images; means over seeds."
    return Table.of("The signal at initialisation", found, columns, note)


def _growth(signal: Sequence[float]) -> float | None:
    first, last = signal[0], signal[-1]
    return last / first if first and last else None


def paper_table(results: Results, summaries: Mapping[str, Summary]) -> Table | None:
    """Scores here and there, and how far their orders agree; None where the paper has no such table."""
    key = results.study.published
    if key is None or not published.known(key):
        return None
    scores = {v.name: published.score(key, v.name, results.study.host_of(v)) for v in results.study.variants}
    shown = [variant for variant in results.study.variants if scores[variant.name] is not None]
    if not shown:
        return None
    ranked = [
        (summaries[name].mean, paper) for name, paper in scores.items() if paper is not None and name in summaries
    ]
    found = agreement([ours for ours, _ in ranked], [theirs for _, theirs in ranked])
    if found is not None:
        order = f"Kendall's tau = {found.tau:+.2f} over {len(ranked)} variants, p = {p_value(found.p)}"
    else:
        order = "too few variants to rank" if len(ranked) < RANKED else "all alike, here or there"
    trained_on = published.trained_on(key, results.study.host_spec.name)
    columns: tuple[Column[Variant], ...] = (
        _variant(),
        Column("score", "here", percent, numeric=True, get=_summarized(summaries, "mean")),
        Column("published", "paper", percent, numeric=True, get=lambda variant: scores[variant.name]),
    )
    return Table.of(
        f"Beside the paper ({published.SOURCE}, {published.table_name(key)})",
        shown,
        columns,
        f"Rank agreement: {order}. Different data, length of training and classes: the paper trained on "
        f"{trained_on}. Only the order can be compared, and that is weak evidence.",
    )
