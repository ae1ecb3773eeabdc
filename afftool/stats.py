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


NORMAL = statistics.NormalDist().inv_cdf(0.975)
SURE = 0.3
FEW_SURE = 18.0
"""So many standard errors above its estimate is the likeness of neighbours taken to be, and so many more over the
number of values: of a dozen, those that wander look independent."""
MOST_ALIKE = 0.98
BLOCKS = 10
"""The fewest blocks that tell how much blocks differ."""


def series_interval(samples: Sequence[float]) -> Interval | None:
    """The 95% interval of the median of positive samples in the order they were taken, which resemble their neighbours.

    On a busy machine a slow second slows a hundred samples, which then say less than a hundred independent ones. How
    much less is told by how alike the ranks of neighbours are, and by how far blocks of several lengths differ in their
    shares above the median; what says the most counts. The ranks of `median_interval` lie further apart by that, and
    where the samples end before, the interval reaches beyond them, by their middle half. Never narrower than that of
    independent samples; None below six. Regimes that last a tenth of the series and more it cannot see the whole of.
    """
    n, plain = len(samples), median_interval(samples)
    if plain is None:
        return None
    import numpy as np

    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    variance = max(1, _apart(samples, plain.estimate), n * _of_the_mean(n, _likeness(samples))) / n
    share = NORMAL * math.sqrt(variance) / 2  # of the samples, on either side of the median
    rank = max(1, math.floor(n * (0.5 - share)))
    low, high = min(plain.low, float(ordered[rank - 1])), max(plain.high, float(ordered[-rank]))
    if n * (0.5 - share) < 1:
        lower, upper = np.quantile(ordered, (0.25, 0.75))
        # The middle half of a series that wanders is narrower than where it wanders, by what its own mean does.
        reach = share / math.sqrt(max(0.1, 1 - variance)) / 0.5 * (math.log(upper / lower) if lower > 0 else math.inf)
        low, high = min(low, plain.estimate * math.exp(-reach)), max(high, plain.estimate * math.exp(min(reach, 700.0)))
    return Interval(plain.estimate, low, high)


def _apart(samples: Sequence[float], middle: float) -> float:
    """How many times more the shares above the middle differ between blocks than chance has them; 0 below 20 samples.

    The most of several lengths of a block, from two samples to a tenth of the series; few blocks count for more.
    """
    import numpy as np

    array = np.asarray(samples, dtype=np.float64)
    upto = np.concatenate(([0.0], np.cumsum((array > middle) + (array == middle) / 2)))
    most, length = 0.0, len(array) // BLOCKS
    while length >= 2:
        shares = np.diff(upto[::length]) / length
        few = _quantile(len(shares) - 1) / NORMAL
        most = max(most, float(np.var(shares, ddof=1)) * length / 0.25 * few**2)
        length //= 2
    return most


def _likeness(values: Sequence[float], *, fitted: int = 1) -> float:
    """By how much neighbours are alike in their ranks at most: an upper limit of their correlation, 0 to `MOST_ALIKE`.

    The estimate is too low by what taking the mean away costs (Kendall 1954), or a line, which is `fitted` by two
    numbers; and uncertain by Bartlett's formula.
    """
    import numpy as np

    n, array = len(values), np.asarray(values, dtype=np.float64)
    ordered = np.sort(array)
    ranks = np.searchsorted(ordered, array, "left") + np.searchsorted(ordered, array, "right")
    ranks = ranks - ranks.mean()
    total = float(ranks @ ranks)
    if total == 0:
        return 0.0
    found = float(ranks[1:] @ ranks[:-1]) / total
    found = min(1.0, found + (fitted + (2 + fitted) * max(0.0, found)) / n)
    return min(MOST_ALIKE, max(0.0, found + (SURE + FEW_SURE / n) * math.sqrt((1 - found**2) / n)))


def _of_the_mean(n: int, likeness: float) -> float:
    """The variance of the mean of n values, over that of one, where the correlation falls by a factor each step."""
    return ((1 + likeness) / (1 - likeness) - 2 * likeness * (1 - likeness**n) / (n * (1 - likeness) ** 2)) / n


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


def paired_ratio(samples: Sequence[float], baseline: Sequence[float]) -> Interval | None:
    """How many times the baseline: a ratio from samples taken in the same rounds, with its 95% interval.

    That of the median of `pair_ratios`, as `series_interval` gives it; None below six of them, twelve rounds.
    Raises `ValueError` where the lengths differ.
    """
    return series_interval(pair_ratios(samples, baseline))


def pair_ratios(samples: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """How many times the baseline, once for every two rounds.

    The nth samples of both come from round n. Two neighbouring rounds, run in opposite orders, make one unit (the
    geometric mean of their two ratios), so that neither drift nor the place in the round counts.
    Raises `ValueError` where the lengths differ.
    """
    if len(samples) != len(baseline):
        raise ValueError(f"{len(samples)} samples against {len(baseline)}: they are not from the same rounds")
    return [
        math.sqrt(samples[i] / baseline[i] * samples[i + 1] / baseline[i + 1]) for i in range(0, len(samples) - 1, 2)
    ]


def of_processes(values: Sequence[float], *, tail: float = 0.025) -> Interval | None:
    """The geometric mean of one positive value a process, with Student's interval of its logarithm; None below two.

    What a process does once and for all (its heap, its place in memory) is drawn anew in each, so processes are the
    sample, and what varies within one only adds to how far its value lies from the next (Kalibera and Jones 2013). A
    share of `tail` may lie beyond either end: 2.5% for an interval of 95%. None where a value is not positive, too.
    """
    if len(values) < 2 or min(values) <= 0:
        return None
    logs = list(map(math.log, values))
    mean, error = statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    reach = _quantile(len(logs) - 1, tail) * error
    return Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def ratio_of_pairs(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Interval | None:
    """How many times the baseline, from pairs of processes timed in the same rounds: a pair is one draw.

    Of each pair the median of its `pair_ratios` counts; None below two pairs, or where one has less than two rounds.
    """
    ratios = [pair_ratios(samples, baseline) for samples, baseline in pairs]
    return of_processes([median(units) for units in ratios]) if all(ratios) else None


def processes_for(values: Sequence[float], precision: float) -> int | None:
    """How many processes that differ as these would put `of_processes` within `precision`, to either side.

    None below two values, where one is not positive, and where it takes more than a thousand.
    """
    if len(values) < 2 or min(values) <= 0:
        return None
    spread = statistics.stdev(map(math.log, values))
    enough = (n for n in range(2, 1001) if math.expm1(_quantile(n - 1) * spread / math.sqrt(n)) <= precision)
    return next(enough, None)


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
    deviation = math.sqrt(m * (m - 1) * (2 * m + 5) / 18 * m * _of_the_mean(m, _likeness(beside, fitted=2)))
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
