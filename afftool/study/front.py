"""Which variants are worth having: what another one beats for certain, and how surely each is on the front.

A variant is dominated where another is better, corrected for all pairs of the study, and worse in no cost. On the front
are those that no other beats, by scores and costs; the seeds leave open which these are, and the bootstrap says by how
much.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from afftool.study.flips import FEWEST
from afftool.study.results import Results
from afftool.study.significance import Comparison

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 2000
_SLICE = 250
"""So many resamples at a time, to bound the memory where there are many variants."""
_TIE = 1e-12
"""Means that differ by less are equal: they are sums of the same numbers in another order."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A variant: its scores by seed, what it costs (by name, less is better), images trained a second by seed.

    `failed` are the seeds whose training failed; each counts as a score of 0 where the front is drawn.
    """

    scores: Mapping[int, float]
    costs: Mapping[str, float]
    speeds: Mapping[int, float]
    failed: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Place:
    """What dominates a variant, if anything does, and in which share of the resamples it is on the front.

    `on_front` is None where all variants have fewer than six seeds in common.
    """

    dominated_by: str | None = None
    on_front: float | None = None


def placed(results: Results, comparisons: Sequence[Comparison]) -> dict[str, Place]:
    """The places of a study's variants that have a score, by what is claimed of all their pairs.

    Parameters, MACs, latency and measured speed are costs.
    """
    scores, failed, points = results.scores(), results.failed(), {}
    for name, values in scores.items():
        if not values:
            continue
        facts, timed = results.plan.facts[name], results.latency.get(name)
        costs = {"params": facts.params, "macs": facts.macs, "latency_ms": timed.latency_ms if timed else None}
        cells = {seed: cell for (variant, seed), cell in results.cells.items() if variant == name}
        points[name] = Point(
            scores=values,
            costs={cost: value for cost, value in costs.items() if value is not None},
            speeds={seed: cell.images_per_s for seed, cell in cells.items() if cell.images_per_s},
            failed=failed[name],
        )
    return places(points, comparisons)


def places(points: Mapping[str, Point], comparisons: Sequence[Comparison], *, seed: int = 0) -> dict[str, Place]:
    """Every point's place, by comparisons of all pairs. `seed` draws the resamples."""
    rivals, shares = _dominating(points, comparisons), _on_front(points, seed)
    return {name: Place(dominated_by=rivals.get(name), on_front=shares.get(name)) for name in points}


def _dominating(points: Mapping[str, Point], comparisons: Sequence[Comparison]) -> dict[str, str]:
    """The best of those that dominate a variant, for each that is dominated."""
    found: dict[str, list[str]] = {}
    for c in comparisons:
        better, worse = (c.variant, c.against) if c.claim == "better" else (c.against, c.variant)
        # A variant that lost runs is too doubtful to rule another out.
        if c.claim in ("better", "worse") and not points[better].failed and _no_dearer(points[better], points[worse]):
            found.setdefault(worse, []).append(better)
    return {name: max(better, key=lambda rival: _mean(points[rival].scores)) for name, better in found.items()}


def _no_dearer(one: Point, other: Point) -> bool:
    """Whether `one` is worse in no cost that is known of both, nor trains more slowly by the means."""
    both = one.costs.keys() & other.costs.keys()
    slower = one.speeds and other.speeds and _mean(one.speeds) < _mean(other.speeds)
    return not slower and all(one.costs[cost] <= other.costs[cost] for cost in both)


def _mean(values: Mapping[int, float]) -> float:
    return statistics.fmean(values.values())


def _on_front(points: Mapping[str, Point], seed: int) -> dict[str, float]:
    """In which share of the resamples no other variant beats each; nothing below six seeds in common."""
    import numpy as np

    known = [point.scores.keys() | point.failed for point in points.values()]
    seeds = sorted(set.intersection(*map(set, known))) if known else []
    if len(seeds) < FEWEST:
        return {}
    scores = np.array([[point.scores.get(s, 0.0) for s in seeds] for point in points.values()])
    speeds = np.array([[point.speeds.get(s, math.nan) for s in seeds] for point in points.values()])
    no_dearer, cheaper = _costs(points)
    drawn = np.random.default_rng(seed).multinomial(len(seeds), [1 / len(seeds)] * len(seeds), size=RESAMPLES)
    there = np.zeros(len(points))
    for start in range(0, RESAMPLES, _SLICE):
        counts = drawn[start : start + _SLICE].astype(np.float64)
        score = counts @ scores.T / len(seeds)
        trained = counts @ (~np.isnan(speeds)).T.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):  # none drawn that is known: not a number, which is no cost
            speed = counts @ np.nan_to_num(speeds).T / trained
        # [resample, rival, variant]
        ahead = score[:, :, None] - score[:, None, :]
        faster, slower = speed[:, :, None] > speed[:, None, :], speed[:, :, None] < speed[:, None, :]
        beaten = (ahead >= -_TIE) & no_dearer & ~slower & ((ahead > _TIE) | cheaper | faster)
        there += (~beaten.any(axis=1)).sum(axis=0)
    return dict(zip(points, (there / RESAMPLES).tolist(), strict=True))


def _costs(points: Mapping[str, Point]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether a rival (row) costs no more than a variant (column) of all that is known of both, and less of one."""
    import numpy as np

    names = sorted({cost for point in points.values() for cost in point.costs})
    costs = np.array([[point.costs.get(name, math.nan) for name in names] for point in points.values()])
    rival, variant = costs[:, None, :], costs[None, :, :]
    return ~np.any(rival > variant, axis=2), np.any(rival < variant, axis=2)
