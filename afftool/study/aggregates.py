"""Several studies as one: what a variant gains over all of them, with intervals (after Agarwal et al., NeurIPS 2021).

Pure functions of numbers; every random choice has an explicit seed. A study's scores are put on a scale that all share:
points above the baseline's interquartile mean in that study. Every study counts alike, however many seeds it has.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from afftool.study.flips import FEWEST

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.05
"""What an interval leaves out, at both ends together."""

Study = Mapping[str, Sequence[float]]
"""Scores by variant; the nth of all variants are of one seed."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval; no interval where a study has fewer than six seeds."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One variant over all studies.

    `gain` is the interquartile mean of its runs, the mean of their middle half, above the baseline's; `improvement` is
    how probable it is that one of its runs scores higher than one of the baseline's in the same study, ties counting
    half; both None for the baseline itself. `profile` is the share of its runs that gain more than each threshold.
    """

    gain: Estimate | None
    improvement: Estimate | None
    profile: tuple[Estimate, ...]


def middle(values: Sequence[float]) -> float:
    """The interquartile mean: of the middle half, runs that lie on its border in part. Raises `ValueError` for none."""
    import numpy as np

    if not len(values):
        raise ValueError("the interquartile mean of no values")
    return float(_middle(np.asarray(values, dtype=np.float64), np.full(len(values), 1 / len(values))))


def aggregate(
    studies: Sequence[Study], baseline: str, thresholds: Sequence[float] = (), *, seed: int = 0
) -> dict[str, Aggregate]:
    """Every variant over the studies, which all have the same ones. `thresholds` are of gains, as scores are written.

    Intervals are of a bootstrap over seeds within each study, the same seeds for all variants, with percentiles moved
    out as Student's t is wider than the normal distribution (Hesterberg 2015). Shares are never given a narrower
    interval than Wilson's for so many runs: where all runs agree, resamples have nothing to vary.
    """
    import numpy as np

    counts = [len(study[baseline]) for study in studies]
    rng = np.random.default_rng(seed)
    # The scores as they are stand first, so that one pass gives estimates and resamples.
    drawn = [np.vstack([np.arange(n), rng.integers(0, n, (RESAMPLES, n))]) for n in counts]
    weights = np.concatenate([np.full(n, 1 / (n * len(studies))) for n in counts])
    tail, runs = _tail(counts), len(studies) ** 2 / sum(1 / n for n in counts)
    enough = min(counts) >= FEWEST

    def told(resampled: Numbers) -> Estimate:
        value = float(resampled[0])
        if not enough:
            return Estimate(value)
        low, high = np.quantile(resampled[1:], (tail, 1 - tail))
        return Estimate(value, float(low), float(high))

    def told_share(resampled: Numbers) -> Estimate:
        share = told(resampled)
        if share.low is None or share.high is None:
            return share
        low, high = _wilson(share.value, runs)
        return Estimate(share.value, min(share.low, low), max(share.high, high))

    base = [np.asarray(study[baseline], dtype=np.float64)[rows] for study, rows in zip(studies, drawn, strict=True)]
    levels = [_middle(scores, np.full(scores.shape[1], 1 / scores.shape[1])) for scores in base]
    found: dict[str, Aggregate] = {}
    for name in studies[0]:
        mine = [np.asarray(study[name], dtype=np.float64)[rows] for study, rows in zip(studies, drawn, strict=True)]
        gains = np.hstack([scores - level[:, None] for scores, level in zip(mine, levels, strict=True)])
        higher = np.mean([_higher(one, other) for one, other in zip(mine, base, strict=True)], axis=0)
        found[name] = Aggregate(
            gain=None if name == baseline else told(_middle(gains, weights)),
            improvement=None if name == baseline else told_share(higher),
            profile=tuple(told_share((gains > threshold) @ weights) for threshold in thresholds),
        )
    return found


def _middle(values: Numbers, weights: Numbers) -> Numbers:
    """The weighted interquartile mean along the last axis; the weights add up to 1."""
    import numpy as np

    order = np.argsort(values, axis=-1)
    ends = np.cumsum(weights[order], axis=-1)
    inside = np.clip(ends, 0.25, 0.75) - np.clip(ends - weights[order], 0.25, 0.75)
    return np.asarray((np.take_along_axis(values, order, axis=-1) * inside).sum(axis=-1) / inside.sum(axis=-1))


def _higher(one: Numbers, other: Numbers) -> Numbers:
    """In which share of all pairs, row by row, `one` is the higher, ties counting half (Mann and Whitney's U)."""
    import numpy as np

    shares = np.zeros(len(one))
    for against in other.T[:, :, None]:  # a column at a time, to bound the memory where there are many seeds
        shares += np.mean(one > against, axis=1) + np.mean(one == against, axis=1) / 2
    return np.asarray(shares / other.shape[1])


def _tail(counts: Sequence[int]) -> float:
    """Where to cut the resamples of so many runs a study, so that half of `LEVEL` lies beyond either end."""
    from scipy.special import stdtrit

    freedom = sum(n - 1 for n in counts)
    if not freedom or min(counts) < 2:
        return LEVEL / 2
    count = statistics.harmonic_mean(counts)
    return statistics.NormalDist().cdf(-math.sqrt(count / (count - 1)) * float(stdtrit(freedom, 1 - LEVEL / 2)))


def _wilson(share: float, runs: float) -> tuple[float, float]:
    """Wilson's interval of a share of so many runs.

    For Mann and Whitney's U of two samples as large it is on the safe side: its variance is at most the binomial one.
    """
    z = statistics.NormalDist().inv_cdf(1 - LEVEL / 2)
    centre, scale = share + z * z / (2 * runs), 1 + z * z / runs
    reach = z * math.sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs))
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)
