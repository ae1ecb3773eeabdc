"""What a study calls dominated, and who is on its front."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from afftool.study.front import Place, Point, places
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
    return places(points)


def any_dominated(costs: str, noise: Noise, lost: float, rng: Rng) -> bool:
    return any(place.dominated_by for place in studied(rng, [0.7] * 7, 8, costs=costs, noise=noise, lost=lost).values())


def found_dominated(apart: float, seeds: int, rng: Rng) -> bool:
    """Whether the worse and dearer of two is told to be dominated by the other."""
    return studied(rng, [0.7 + apart, 0.7], seeds, costs="rising")["1"].dominated_by == "0"


def kept_out(apart: float, rng: Rng) -> bool:
    """Whether the one of seven that is truly the best is hardly ever on the front."""
    share = studied(rng, [0.7] * 6 + [0.7 + apart], 8, costs="equal")["6"].on_front
    return share is not None and share < 0.05


EQUALS: tuple[tuple[str, str, Noise, float], ...] = (
    ("equal costs", "equal", normal, 0.0),
    ("random costs", "random", normal, 0.0),
    ("random costs, one run in ten collapses", "random", collapsing, 0.0),
    ("random costs, one loses its worst 30%", "random", normal, 0.3),
)

TRIALS: tuple[Trial, ...] = (
    *(
        Trial(
            what="any of seven equal variants is called dominated",
            world=f"8 seeds, {world}",
            run=partial(any_dominated, costs, noise, lost),
            runs=800,
            few=100 if number < 2 else 0,
            most=0.05,
        )
        for number, (world, costs, noise, lost) in enumerate(EQUALS)
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
)
