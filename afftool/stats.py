"""Statistics of repeated timings, as pure functions of numbers. Too few samples give None, never a claim.

Samples are in any unit, in the order they were taken; every random choice has an explicit seed.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

FEWEST = 6
"""Below six samples no 95% interval of the median exists: (1/2)^5 on either side is more than 5%."""


@dataclass(frozen=True)
class Interval:
    """An interval around an estimate, of 95% unless it is said otherwise."""

    estimate: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """How far the interval reaches to its wider side, relative to the estimate."""
        reach = max(self.high - self.estimate, self.estimate - self.low)
        return reach / abs(self.estimate) if self.estimate else math.inf

    def contains(self, value: float) -> bool:
        """Whether `value` lies in the interval, ends included."""
        return self.low <= value <= self.high


def median(samples: Sequence[float]) -> float:
    """The median. Raises `ValueError` without samples."""
    if not samples:
        raise ValueError("the median of no samples")
    return statistics.median(samples)


def percentile(samples: Sequence[float], q: float) -> float | None:
    """The q-th percentile (0 to 100), linear between ranks; None where no sample lies beyond it on the short side.

    That is fewer than 100 samples for the 99th percentile and fewer than 4 for the quartiles.
    """
    tail = min(q, 100 - q) / 100
    if not samples or (tail > 0 and len(samples) * tail < 1 - 1e-9):
        return None
    ordered = sorted(samples)
    position = (len(ordered) - 1) * q / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def iqr(samples: Sequence[float]) -> float | None:
    """The interquartile range; None below four samples."""
    low, high = percentile(samples, 25), percentile(samples, 75)
    return None if low is None or high is None else high - low


def median_interval(samples: Sequence[float]) -> Interval | None:
    """The distribution-free 95% interval of the median: two order statistics, by the binomial; None below six.

    Exact for independent samples, and never narrower than 95% (David and Nagaraja, Order Statistics, 7.1).
    """
    rank = _lower_rank(len(samples))
    if rank is None:
        return None
    ordered = sorted(samples)
    return Interval(statistics.median(ordered), ordered[rank - 1], ordered[-rank])


def series_interval(samples: Sequence[float]) -> Interval | None:
    """The 95% interval of the median of samples in the order they were taken, which resemble their neighbours.

    On a busy machine a slow second slows a hundred samples, which then say less than a hundred independent ones. How
    much less is read off the shares of samples above the median in blocks of about the root of their number: by how
    much these vary more than chance, the ranks of `median_interval` lie further apart. Never narrower than that.
    None below six samples.
    """
    n, plain = len(samples), median_interval(samples)
    length = round(math.sqrt(n))
    blocks = n // max(1, length)
    if plain is None or blocks < FEWEST:
        return plain
    above = [(x > plain.estimate) + (x == plain.estimate) / 2 for x in samples]
    shares = [statistics.fmean(above[i * length : (i + 1) * length]) for i in range(blocks)]
    inflation = statistics.variance(shares) * length / 0.25
    if inflation <= 1:
        return plain
    rank = max(1, math.floor((n - _quantile(blocks - 1) * math.sqrt(n * inflation)) / 2))
    ordered = sorted(samples)
    return Interval(plain.estimate, min(plain.low, ordered[rank - 1]), max(plain.high, ordered[-rank]))


@lru_cache(maxsize=4096)
def _quantile(freedom: float, tail: float = 0.025) -> float:
    """Student's t beyond which a share of `tail` lies."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - tail))


@lru_cache(maxsize=4096)
def _lower_rank(n: int) -> int | None:
    """The largest rank j (from 1) with P(Binomial(n, 1/2) < j) at most 2.5%."""
    if n < FEWEST:
        return None
    if n > 1000:  # the normal approximation is exact to a rank here, and rounds to the wider side
        return max(1, math.floor((n - 1.96 * math.sqrt(n)) / 2))
    limit, cumulated, term, rank = 2**n * 0.025, 1, 1, 0
    while cumulated <= limit:
        rank += 1
        term = term * (n - rank + 1) // rank
        cumulated += term
    return rank


def paired_ratio(
    samples: Sequence[float], baseline: Sequence[float], *, seed: int = 0, resamples: int = 2000
) -> Interval | None:
    """How many times the baseline: a ratio from samples taken in the same rounds, with its 95% bootstrap interval.

    The nth samples of both come from round n. Two neighbouring rounds, run in opposite orders, make one unit (the
    geometric mean of their two ratios), so that neither drift nor the place in the round counts. None below six units,
    twelve rounds. Raises `ValueError` where the lengths differ.
    """
    if len(samples) != len(baseline):
        raise ValueError(f"{len(samples)} samples against {len(baseline)}: they are not from the same rounds")
    units = [
        math.sqrt(samples[i] / baseline[i] * samples[i + 1] / baseline[i + 1]) for i in range(0, len(samples) - 1, 2)
    ]
    return bootstrap_median(units, seed=seed, resamples=resamples)


def of_processes(values: Sequence[float], *, tail: float = 0.025) -> Interval | None:
    """The geometric mean of one positive value a process, with Student's interval of its logarithm; None below two.

    What a process does once and for all (its heap, its place in memory) is drawn anew in each, so processes are the
    sample, and what varies within one only adds to how far its value lies from the next (Kalibera and Jones 2013). A
    share of `tail` may lie beyond either end: 2.5% for an interval of 95%.
    """
    if len(values) < 2:
        return None
    logs = list(map(math.log, values))
    mean, error = statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    reach = _quantile(len(logs) - 1, tail) * error
    return Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def spanned(intervals: Sequence[Interval | None]) -> Interval | None:
    """One interval for processes that each have their own: it reaches from the lowest end to the highest.

    The estimate is the median of theirs. Those that have none are passed over; None where none has one.
    """
    known = [interval for interval in intervals if interval is not None]
    if not known:
        return None
    estimate = statistics.median(interval.estimate for interval in known)
    return Interval(estimate, min(i.low for i in known), max(i.high for i in known))


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

    They are two where the widest gap between neighbours is more than 15% of the value below it, and wider than the
    stretch of either group.
    """
    ordered = sorted(values)
    if len(ordered) < 2:
        return None
    gap, cut = max((b - a, i) for i, (a, b) in enumerate(itertools.pairwise(ordered), 1))
    low, high = ordered[:cut], ordered[cut:]
    if gap <= APART * low[-1] or gap <= max(low[-1] - low[0], high[-1] - high[0]):
        return None
    return Groups(statistics.median(low), statistics.median(high), len(high) / len(ordered))


def bootstrap_median(values: Sequence[float], *, seed: int = 0, resamples: int = 2000) -> Interval | None:
    """The median of a series with its 95% circular block bootstrap interval; None below six values.

    Neighbours resemble each other (a busy second on the machine, a place in memory), so values are drawn anew in
    blocks, as many as each is long (Künsch 1989). So few draws make a percentile interval too narrow; its percentiles
    are moved out as Student's t is wider than the normal distribution (Hesterberg 2015, section 5.3), and it never
    is narrower than the exact interval for independent values.
    """
    n = len(values)
    exact = median_interval(values)
    if exact is None:
        return None
    import numpy as np

    generator = np.random.default_rng(seed)
    array = np.asarray(values, dtype=np.float64)
    length = round(math.sqrt(n))
    blocks = -(-n // length)
    medians = np.empty(resamples)
    for start in range(0, resamples, 250):  # in slices, to bound the memory of long runs
        count = min(250, resamples - start)
        first = generator.integers(0, n, size=(count, blocks, 1))
        drawn = ((first + np.arange(length)) % n).reshape(count, -1)[:, :n]
        medians[start : start + count] = np.median(array[drawn], axis=1)
    tail = 100 * _tail(n / length)
    low, high = np.percentile(medians, (tail, 100 - tail))
    return Interval(exact.estimate, min(exact.low, float(low)), max(exact.high, float(high)))


def _tail(draws: float) -> float:
    """Where to cut a bootstrap distribution of so many independent draws, so that 2.5% of the truth lie beyond."""
    return statistics.NormalDist().cdf(-math.sqrt(draws / (draws - 1)) * _quantile(draws - 1))


def outliers(samples: Sequence[float]) -> list[bool]:
    """Which samples lie more than 3 interquartile ranges outside the quartiles (Tukey's "far out"); flags, in order."""
    low, high = percentile(samples, 25), percentile(samples, 75)
    if low is None or high is None:
        return [False] * len(samples)
    reach = 3 * (high - low)
    return [not low - reach <= sample <= high + reach for sample in samples]


def drift(samples: Sequence[float]) -> float | None:
    """The relative change from the first third to the last, 0.0 where it is no more than chance; None below 12 samples.

    Chance is judged by Kendall's rank correlation with time at the 1% level.
    """
    n = len(samples)
    if n < 12:
        return None
    third = n // 3
    first, last = statistics.median(samples[:third]), statistics.median(samples[-third:])
    means = _chunk_means(samples, 60)
    m = len(means)
    concordance = sum((b > a) - (b < a) for i, a in enumerate(means) for b in means[i + 1 :])
    deviation = math.sqrt(m * (m - 1) * (2 * m + 5) / 18)
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
