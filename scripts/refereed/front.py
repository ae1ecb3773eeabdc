"""What a study calls dominated, who is on its front, and what several studies say together.

The runs of a variant have a standard deviation of 0.6 points; of collapsing ones one in ten ends ten points lower.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache, partial
from typing import Literal

import numpy as np

from afftool.study.aggregates import aggregate, middle
from afftool.study.front import Place, Point, places
from afftool.study.significance import compare
from refereed.trial import Trial

Rng = np.random.Generator
SPREAD = 0.006
"""Standard deviation of a variant's score over seeds."""

Noise = Callable[[Rng, int], "np.ndarray[tuple[int], np.dtype[np.float64]]"]


def normal(rng: Rng, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return rng.normal(0, SPREAD, count)


def collapsing(rng: Rng, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """One run in ten ends ten points lower."""
    return normal(rng, count) - 0.1 * (rng.random(count) < 0.1)


def studied(
    rng: Rng, levels: list[float], seeds: int, *, costs: str, noise: Noise = normal, lost: float = 0.0
) -> dict[str, Place]:
    """The places of variants with true means `levels`; their costs are equal, drawn at random, or rise in their order.

    The last loses a share of its runs, the worst, to failures.
    """
    params = {
        "equal": np.ones(len(levels)),
        "random": rng.permutation(len(levels)) + 1.0,
        "rising": np.arange(len(levels)) + 1.0,
    }[costs]
    speeds = 1000 / params if costs == "rising" else rng.normal(1000, 20, len(levels))
    points = {}
    for number, level in enumerate(levels):
        values = level + noise(rng, seeds)
        gone = np.argsort(values)[: round(lost * seeds) if number == len(levels) - 1 else 0].tolist()
        points[str(number)] = Point(
            scores={seed: float(value) for seed, value in enumerate(values) if seed not in gone},
            costs={"params": float(params[number])},
            speeds={seed: float(speeds[number] * rng.normal(1, 0.01)) for seed in range(seeds) if seed not in gone},
            failed=frozenset(gone),
        )
    pairs = list(itertools.combinations(points, 2))
    failed = {name: point.failed for name, point in points.items()}
    return places(points, compare({name: point.scores for name, point in points.items()}, pairs, failed=failed))


def any_dominated(seeds: int, costs: str, noise: Noise, lost: float, rng: Rng) -> bool:
    found = studied(rng, [0.7] * 7, seeds, costs=costs, noise=noise, lost=lost)
    return any(place.dominated_by for place in found.values())


def found_dominated(apart: float, seeds: int, rng: Rng) -> bool:
    """Whether the worse and dearer of two is told to be dominated by the other."""
    return studied(rng, [0.7 + apart, 0.7], seeds, costs="rising")["1"].dominated_by == "0"


def kept_out(apart: float, rng: Rng) -> bool:
    """Whether the one of seven that is truly the best is hardly ever on the front."""
    share = studied(rng, [0.7] * 6 + [0.7 + apart], 8, costs="equal")["6"].on_front
    return share is not None and share < 0.05


EQUALS: tuple[tuple[str, int, str, Noise, float], ...] = (
    ("equal costs", 8, "equal", normal, 0.0),
    ("random costs", 8, "random", normal, 0.0),
    ("random costs, one run in ten collapses", 8, "random", collapsing, 0.0),
    ("random costs, one loses its worst 30%", 8, "random", normal, 0.3),
    ("equal costs", 12, "equal", normal, 0.0),
    ("equal costs, one run in ten collapses", 12, "equal", collapsing, 0.0),
)

Quantity = Literal["gain", "improvement", "profile"]


def taken_together(
    what: Quantity, gains: tuple[float, ...], seeds: int, noise: Noise, shared: float, rng: Rng
) -> bool | None:
    """Whether the interval over studies, one a gain, holds the truth; `shared` is the deviation of a seed's luck."""
    studies = []
    for gain in gains:
        luck = rng.normal(0, shared, seeds)
        level = rng.uniform(0.5, 0.9)
        base, other = level + luck + noise(rng, seeds), level + gain + luck + noise(rng, seeds)
        studies.append({"base": base.tolist(), "other": other.tolist()})
    found = aggregate(studies, "base", (THRESHOLD,))["other"]
    estimate = {"gain": found.gain, "improvement": found.improvement, "profile": found.profile[0]}[what]
    assert estimate is not None
    if estimate.low is None or estimate.high is None:
        return None
    return estimate.low <= truth(what, gains, noise, shared) <= estimate.high


@cache
def truth(what: Quantity, gains: tuple[float, ...], noise: Noise, shared: float) -> float:
    """The same of so many runs that no more would change it."""
    rng, many = np.random.default_rng(0), 400_000
    base, other = (rng.normal(0, shared, many) + noise(rng, many) for _ in range(2))
    if what == "improvement":
        return float(np.mean([np.mean(other + gain > base) for gain in gains]))
    pooled = np.concatenate([other + gain - middle(base) for gain in gains])
    return middle(pooled) if what == "gain" else float(np.mean(pooled > THRESHOLD))


THRESHOLD = 0.004
QUANTITIES: dict[Quantity, str] = {
    "gain": "a gain over studies",
    "improvement": "the chance of scoring higher",
    "profile": "a performance profile at one threshold",
}
TOGETHER: tuple[tuple[str, tuple[float, ...], int, Noise, float], ...] = (
    ("2 studies, 6 seeds, equal", (0.0, 0.0), 6, normal, 0.0),
    ("2 studies, 8 seeds, one gains", (0.006, 0.0), 8, normal, 0.0),
    ("3 studies, 8 seeds, all gain much", (0.015, 0.015, 0.015), 8, normal, 0.0),
    ("4 studies, 8 seeds, one run in ten collapses", (0.0, 0.0, 0.006, 0.006), 8, collapsing, 0.0),
    ("2 studies, 8 seeds, subsets that all variants of a seed share", (0.003, 0.003), 8, normal, SPREAD),
)

TRIALS: tuple[Trial, ...] = (
    *(
        Trial(
            what="any of seven equal variants is called dominated",
            world=f"{seeds} seeds, {world}",
            run=partial(any_dominated, seeds, costs, noise, lost),
            runs=800,
            few=100 if number < 2 else 0,
            most=0.05,
        )
        for number, (world, seeds, costs, noise, lost) in enumerate(EQUALS)
    ),
    *(
        Trial(
            what="the worse and dearer of two is called dominated",
            world=f"{seeds} seeds, {apart / SPREAD:g} deviations apart",
            run=partial(found_dominated, apart, seeds),
            runs=500,
            few=0,
        )
        for seeds, apart in ((8, SPREAD), (8, 2 * SPREAD), (16, SPREAD))
    ),
    Trial(
        what="the true best of seven is on the front in less than 5% of the resamples",
        world="8 seeds, a third of a deviation ahead, equal costs",
        run=partial(kept_out, SPREAD / 3),
        runs=500,
        few=0,
    ),
    *(
        Trial(
            what=f"the 95% interval of {of} holds the truth",
            world=world,
            run=partial(taken_together, what, gains, seeds, noise, shared),
            runs=600,
            few=60 if what == "gain" and place in (0, 3) else 0,
            least=0.93,
        )
        for what, of in QUANTITIES.items()
        for place, (world, gains, seeds, noise, shared) in enumerate(TOGETHER)
    ),
)
