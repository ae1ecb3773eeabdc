"""Statistics of repeated timings, as pure functions of numbers. Too few samples give None, never a claim.

Samples are in any unit, in the order they were taken; every random choice has an explicit seed.
"""

from __future__ import annotations

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
    variance = max(1, _apart(samples, plain.estimate), n * of_the_mean(n, likeness(samples))) / n
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


def likeness(values: Sequence[float], *, fitted: int = 1) -> float:
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


def of_the_mean(n: int, alike: float) -> float:
    """The variance of the mean of n values, over that of one, where the correlation falls by that factor each step."""
    return ((1 + alike) / (1 - alike) - 2 * alike * (1 - alike**n) / (n * (1 - alike) ** 2)) / n


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
