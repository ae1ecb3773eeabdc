"""Made-up measurements whose truth is known: how samples vary within a process, and processes among themselves.

Every world gives positive numbers with a true median of 1 (over the whole of the series, where it drifts).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

Rng = np.random.Generator
Samples = npt.NDArray[np.float64]
World = Callable[[Rng, int], Samples]
"""So many samples in the order in which they are taken."""

SPREAD = 0.03
"""Standard deviation of a sample, relative."""


def independent(rng: Rng, count: int) -> Samples:
    return np.exp(rng.normal(0, SPREAD, count))


def resembling(correlation: float) -> World:
    """Samples that resemble their neighbours: stationary and autoregressive of order 1 in their logarithms."""

    def samples(rng: Rng, count: int) -> Samples:
        shocks = rng.normal(0, SPREAD * math.sqrt(1 - correlation**2), count)
        shocks[0] = rng.normal(0, SPREAD)
        return np.exp(lfilter([1.0], [1.0, -correlation], shocks))

    return samples


def drifting(rng: Rng, count: int) -> Samples:
    """The level moves by 4% from the first sample to the last, up or down."""
    return np.exp(rng.normal(0, SPREAD, count) + rng.choice((-1, 1)) * np.linspace(-0.02, 0.02, count))


def two_regimes(rng: Rng, count: int) -> Samples:
    """The machine is 8% slower three tenths of the time, for forty samples at a time on the mean."""
    leave = (3 / 7 / 40, 1 / 40)
    state, states = int(rng.random() < 0.3), np.empty(count)
    for i, luck in enumerate(rng.random(count)):
        states[i] = state
        state = 1 - state if luck < leave[state] else state
    return np.exp(rng.normal(0, SPREAD / 3, count) + 0.08 * states) / _REGIMES_MEDIAN


_REGIMES_MEDIAN = math.exp(0.00566)
"""Where 0.7 Phi(m / 0.01) + 0.3 Phi((m - 0.08) / 0.01) is a half."""


def heavy_tailed(rng: Rng, count: int) -> Samples:
    """One sample in twenty is interrupted, and takes half as long again on the mean."""
    interrupted = rng.random(count) < 0.05
    return independent(rng, count) * (1 + interrupted * rng.exponential(0.5, count)) / math.exp(SPREAD * _TAIL_SHIFT)


_TAIL_SHIFT = 0.0640
"""The median moves by so many deviations, because the interrupted samples lie above nearly all others."""

WITHIN: dict[str, World] = {
    "independent": independent,
    "AR .5": resembling(0.5),
    "AR .9": resembling(0.9),
    "drifting": drifting,
    "two regimes": two_regimes,
    "heavy tails": heavy_tailed,
}
"""How samples vary within a process, by name."""
BETWEEN = (0.0, 0.01, 0.02, 0.03)
"""Standard deviation of processes that do the same, relative."""


def processes(rng: Rng, world: World, count: int, samples: int, between: float) -> list[Samples]:
    """So many processes of so many samples each; each has a level of its own."""
    return [world(rng, samples) * math.exp(rng.normal(0, between)) for _ in range(count)]
