"""What samples do besides being spread: they lie far out, drift, jump between levels, come in groups. Pure functions.

Samples are in any unit, in the order they were taken.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from afftool.stats import likeness, of_the_mean, percentile

APART = 0.15
"""Two groups lie further apart than that, relative to the lower."""


@dataclass(frozen=True)
class Groups:
    """Two groups of numbers, by their medians, and the share of the numbers that are in the upper one."""

    low: float
    high: float
    high_share: float


def two_groups(values: Sequence[float]) -> Groups | None:
    """The two groups that the values form, None where they are one.

    They are two where the widest gap between neighbours, as a factor, is more than 15%, and wider than the stretch of
    either group. None where a value is not positive.
    """
    ordered = sorted(values)
    if len(ordered) < 2 or ordered[0] <= 0:
        return None
    gap, cut = max((b / a, i) for i, (a, b) in enumerate(itertools.pairwise(ordered), 1))
    low, high = ordered[:cut], ordered[cut:]
    if gap <= 1 + APART or gap <= max(low[-1] / low[0], high[-1] / high[0]):
        return None
    return Groups(statistics.median(low), statistics.median(high), len(high) / len(ordered))


def outliers(samples: Sequence[float]) -> list[bool]:
    """Which samples lie more than 3 interquartile ranges outside the quartiles (Tukey's "far out"); flags, in order."""
    low, high = percentile(samples, 25), percentile(samples, 75)
    if low is None or high is None:
        return [False] * len(samples)
    reach = 3 * (high - low)
    return [not low - reach <= sample <= high + reach for sample in samples]


def drift(samples: Sequence[float]) -> float | None:
    """The relative change from the first third to the last, 0.0 where it is no more than chance; None below 12 samples.

    Chance is judged by Kendall's rank correlation with time at the 1% level, where samples resemble their neighbours
    beside a straight line by what that adds to its variance (Hamed and Rao 1998).
    """
    n = len(samples)
    if n < 12:
        return None
    third = n // 3
    first, last = statistics.median(samples[:third]), statistics.median(samples[-third:])
    means = _chunk_means(samples, 60)
    m = len(means)
    rises = [(b - a, j - i) for i, a in enumerate(means) for j, b in enumerate(means[i + 1 :], i + 1)]
    concordance = sum((rise > 0) - (rise < 0) for rise, _ in rises)
    slope = statistics.median(rise / steps for rise, steps in rises)
    beside = [mean - slope * i for i, mean in enumerate(means)]
    deviation = math.sqrt(m * (m - 1) * (2 * m + 5) / 18 * m * of_the_mean(m, likeness(beside, fitted=2)))
    return last / first - 1 if first and abs(concordance) > 2.576 * deviation else 0.0


def _chunk_means(samples: Sequence[float], count: int) -> list[float]:
    """At most `count` medians of equal stretches, so that long series stay cheap to rank."""
    if len(samples) <= count:
        return list(samples)
    edges = [i * len(samples) // count for i in range(count + 1)]
    return [statistics.median(samples[a:b]) for a, b in itertools.pairwise(edges)]


def modes(samples: Sequence[float]) -> tuple[float, float] | None:
    """The two levels the samples jump between, or None where they have one level or are fewer than 20.

    The best split in two (least squares in one dimension) counts as two levels if each holds a tenth of the samples
    and the stretch midway between them is at least four times emptier than the sparser level.
    """
    n = len(samples)
    if n < 20:
        return None
    ordered = sorted(samples)
    cut = _best_split(ordered)
    if min(cut, n - cut) < max(3, n / 10):
        return None
    low, high = statistics.median(ordered[:cut]), statistics.median(ordered[cut:])
    sixth = (high - low) / 6

    def around(centre: float) -> int:
        return sum(centre - sixth <= sample <= centre + sixth for sample in ordered)

    if sixth <= 0 or 4 * around((low + high) / 2) > min(around(low), around(high)):
        return None
    return low, high


def _best_split(ordered: Sequence[float]) -> int:
    """Where to cut sorted numbers in two so that the sum of squares within the parts is least."""
    n, total, left = len(ordered), math.fsum(ordered), 0.0
    best, best_gain = 1, -math.inf
    for i in range(1, n):
        left += ordered[i - 1]
        gain = left * left / i + (total - left) ** 2 / (n - i)
        if gain > best_gain:
            best, best_gain = i, gain
    return best
