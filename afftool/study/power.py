"""What so many seeds can show: the smallest difference that the joint test finds in four studies of five, simulated."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache

from afftool.study.flips import FEWEST, allowed, ends, flipped, rivals

POWER = 0.8
DRAWS = 3_000
"""So many comparisons are drawn."""
TRIED = 256
"""So many flips of each are tried, where there are more."""


@cache
def detectable_deviations(seeds: int, comparisons: int = 1) -> float | None:
    """The smallest true difference shown in 80% of studies, in standard deviations of the paired differences.

    For normally distributed scores of variants with a common baseline. None where no difference can be claimed. As a
    comparison's claim does not depend on the others' differences, nor does this.
    """
    if seeds < FEWEST or comparisons < 1:
        return None
    import numpy as np

    draws = max(50, DRAWS // comparisons)
    scores = np.random.default_rng(0).standard_normal((draws, comparisons + 1, seeds))
    differences = (scores[:, 1:] - scores[:, :1]) / math.sqrt(2)
    turned = flipped(seeds, most=TRIED)
    spare, needed = allowed(len(turned)), []
    for some in np.array_split(differences, max(1, differences.size * len(turned) // (seeds * 500_000))):
        low, _ = ends(some, turned, *rivals(some, turned))
        # A true difference moves the lower end of its interval along, and is claimed once that is above 0.
        needed.append(-np.partition(low, spare, axis=-1)[..., spare].ravel())
    return float(np.quantile(np.concatenate(needed), POWER))


def detectable(differences: Sequence[float], comparisons: int) -> tuple[float, float, float] | None:
    """The smallest true mean difference shown in 80% of such studies, and the 95% interval that it is known to.

    It is in proportion to the deviation of the differences, of which so few say little: its interval is that of the
    chi-square distribution. None where no difference can be claimed, or where the differences are all the same.
    """
    deviations = detectable_deviations(len(differences), comparisons)
    if deviations is None or not (deviation := statistics.stdev(differences)):
        return None
    smallest = deviations * deviation
    low, high = _deviation_known_to(len(differences))
    return smallest, smallest * low, smallest * high


@cache
def _deviation_known_to(count: int) -> tuple[float, float]:
    """The ends of the 95% interval of a standard deviation of so many numbers, as multiples of the one found."""
    from scipy.stats import chi2

    low, high = (math.sqrt((count - 1) / float(chi2.ppf(share, count - 1))) for share in (0.975, 0.025))
    return low, high
