"""What a handful of seeds can say: means with intervals, paired differences, and what cannot be claimed.

Pure functions of numbers; every random choice has an explicit seed. Differences are taken seed by seed, because all
variants see the same data in the same order and start from the same host. The test is the sign-flip permutation test:
if two variants were alike, each difference could as well have had the other sign. It is exact up to `EXACT` seeds.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

LEVEL = 0.05
"""Chance of claiming any difference at all where there is none, over all comparisons of a study."""
POWER = 0.8
EXACT = 16
FLIPS = 100_000
SIMULATED = 12
"""Up to so many seeds the power of the test is simulated, in `DRAWS` draws."""
DRAWS = 4_000
FEWEST = 6
"""Below six seeds even one comparison, all differences of one sign, has p = 2 / 2^5 > 5%."""

Claim = Literal["better", "worse", "cannot tell"]
"""What may be said of a variant beside another. (*Verdict* is the gate's word.)"""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One variant's scores by seed, their mean, and the 95% interval of the mean (Student's t; None for one seed)."""

    values: dict[int, float]
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`variant` minus `against`, paired by seed.

    `low` and `high` bound the 95% interval of the mean difference, of this comparison alone; `effect` is the mean
    over the deviation of the differences (Cohen's d for pairs, Hedges' correction); `p` is of the sign-flip test and
    `p_corrected` Holm's over the study's comparisons; `detectable` is the smallest true difference that these seeds
    would have shown with 80% probability, None where they could not show any.
    """

    variant: str
    against: str
    seeds: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    effect: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    detectable: float | None = None
    claim: Claim = "cannot tell"


def summarize(values: Mapping[int, float]) -> Summary:
    """Mean and 95% interval of the mean. Raises `ValueError` without values."""
    numbers = list(values.values())
    mean, half = statistics.fmean(numbers), _half_width(numbers)
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return Summary(values=dict(sorted(values.items())), mean=mean, low=low, high=high)


def compare(
    scores: Mapping[str, Mapping[int, float]], pairs: Sequence[tuple[str, str]], seed: int = 0
) -> list[Comparison]:
    """Compare each (variant, against) by the seeds both have, corrected for the number of comparisons."""
    found = [_compare(scores, variant, against, len(pairs), seed) for variant, against in pairs]
    corrected = holm([c.p for c in found])
    return [_with_claim(c, p) for c, p in zip(found, corrected, strict=True)]


def _compare(
    scores: Mapping[str, Mapping[int, float]], variant: str, against: str, comparisons: int, seed: int
) -> Comparison:
    one, other = scores.get(variant, {}), scores.get(against, {})
    differences = [one[s] - other[s] for s in sorted(one.keys() & other.keys())]
    if not differences:
        return Comparison(variant=variant, against=against, seeds=0)
    mean, half = statistics.fmean(differences), _half_width(differences)
    return Comparison(
        variant=variant,
        against=against,
        seeds=len(differences),
        difference=mean,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
        effect=effect_size(differences),
        p=sign_flip(differences, seed),
        detectable=detectable(differences, comparisons),
    )


def _with_claim(comparison: Comparison, p: float | None) -> Comparison:
    claim: Claim = "cannot tell"
    if p is not None and p <= LEVEL and comparison.difference:
        claim = "better" if comparison.difference > 0 else "worse"
    return dataclasses.replace(comparison, p_corrected=p, claim=claim)


def sign_flip(differences: Sequence[float], seed: int = 0) -> float:
    """Two-sided p-value of the sign-flip test on the mean; exact up to `EXACT` differences, else by random flips.

    Raises `ValueError` without differences.
    """
    import numpy as np

    if not differences:
        raise ValueError("a test of no differences")
    values = np.asarray(differences, dtype=np.float64)
    count = len(values)
    if count <= EXACT:
        # Every number from 0 to 2^n - 1 is, bit by bit, one way to give the n differences signs.
        bits = np.arange(2**count)[:, None] >> np.arange(count) & 1
        sums = np.abs((1 - 2 * bits) @ values)
        extra = 0
    else:
        rng = np.random.default_rng(seed)
        sums = np.abs((1 - 2 * rng.integers(0, 2, (FLIPS, count), dtype=np.int8)) @ values)
        extra = 1  # the observed signs are one of the possible ones
    # The observed signs must count as reaching themselves, whatever order their sum is rounded in.
    reached = sums >= abs(values.sum()) - 1e-7 * np.abs(values).sum()
    return float((reached.sum() + extra) / (len(sums) + extra))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction; comparisons without a p-value stay without and still count."""
    total = len(p_values)
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * total
    running = 0.0
    for rank, (p, i) in enumerate(order):
        # The smallest p stands against all hypotheses, the next against one fewer; none comes out below one before.
        running = max(running, min(1.0, p * (total - rank)))
        corrected[i] = running
    return corrected


def smallest_p(seeds: int, comparisons: int = 1) -> float:
    """The smallest corrected p-value that so many seeds can give: all differences of one sign, however large."""
    return min(1.0, comparisons * 2 / 2**seeds) if seeds else 1.0


def fewest_seeds(comparisons: int) -> int:
    """How many seeds it takes before the best of so many comparisons can be claimed."""
    seeds = FEWEST
    while smallest_p(seeds, comparisons) > LEVEL:
        seeds += 1
    return seeds


def effect_size(differences: Sequence[float]) -> float | None:
    """Mean over standard deviation with Hedges' small-sample correction; None where that is no number."""
    if len(differences) < 3 or not (deviation := statistics.stdev(differences)):
        return None
    correction = 1 - 3 / (4 * (len(differences) - 1) - 1)
    return statistics.fmean(differences) / deviation * correction


def detectable(differences: Sequence[float], comparisons: int) -> float | None:
    """The smallest true mean difference shown with 80% probability at the corrected level, given this spread.

    At `LEVEL / comparisons`, the strictest step of Holm's correction, for normally distributed differences.
    """
    count = len(differences)
    if count < 2 or smallest_p(count, comparisons) > LEVEL:
        return None
    return _detectable_deviations(count, comparisons) * statistics.stdev(differences)


@cache
def _detectable_deviations(count: int, comparisons: int) -> float:
    """The same in standard deviations, by simulating the sign-flip test itself up to `SIMULATED` differences.

    The p-value of z + d is 2 (1 + k) / 2^n, where k subsets of z have a mean of -d or below. So it comes down to the
    level just beyond d = -(the K-th smallest of all subset means), with K = level 2^n / 2, rounded down.
    """
    import numpy as np
    from scipy.stats import t

    level = LEVEL / comparisons
    if count > SIMULATED:  # there the test has nearly the t-test's power
        return float(t.ppf(1 - level / 2, count - 1) + t.ppf(POWER, count - 1)) / math.sqrt(count)
    # For each draw z of n normal differences, the smallest shift d at which its test turns significant, in closed form
    # (above); the power at d is then the share of draws whose own shift is below d, and d at 80% is their quantile.
    subsets = (np.arange(1, 2**count)[:, None] >> np.arange(count) & 1).astype(np.float64)
    subsets /= subsets.sum(axis=1, keepdims=True)
    means = np.random.default_rng(0).standard_normal((DRAWS, count)) @ subsets.T
    rank = int(level * 2 ** (count - 1) + 1e-9)  # at least 1, for `detectable` asks only where a claim is possible
    shifts = -np.partition(means, rank - 1, axis=1)[:, rank - 1]
    return float(np.quantile(shifts, POWER))


def _half_width(numbers: Sequence[float]) -> float | None:
    from scipy.stats import t

    if len(numbers) < 2:
        return None
    return float(t.ppf(0.975, len(numbers) - 1)) * statistics.stdev(numbers) / math.sqrt(len(numbers))
