"""The joint sign-flip test of a study's comparisons, and the intervals that say the same. Pure functions of numbers.

If two variants were alike, each paired difference could as well have had the other sign. All comparisons of a study
share their seeds, and most share a baseline, so a flip turns the differences of a seed in all of them at once: what
they have in common stays in the reference, and nothing is wasted on treating them as if they had nothing (Westfall
and Young 1993, single-step max-t). A comparison is claimed where at most `LEVEL` of the flips reach its |t| with the
largest |t| of all comparisons. The interval of a comparison holds every shift of its own differences that the same
test does not refuse, so it leaves 0 out if and only if there is a claim. For one comparison the test is exact where
differences are symmetric about their mean; for several the referee (`scripts/refereed/studies.py`) tells its error.

Looks: a study may be looked at again with more seeds. What an earlier look would have claimed under a flip counts as
reached at every later look, so the chance of claiming anything in any look together stays at `LEVEL`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]
    """Paired differences: comparisons x seeds, NaN where a seed has none (leading axes are studies)."""
    Flags = npt.NDArray[np.bool_]

LEVEL = 0.05
"""Chance of claiming any difference at all where there is none, over all comparisons and looks of a study."""
FEWEST = 6
"""Below six seeds even one comparison, all differences of one sign, has p = 2 / 2^5 > 5%."""
EXACT = 16
"""Up to so many seeds every flip is tried, above it `FLIPS` random ones."""
FLIPS = 20_000
BORROWED = 2.0
"""A variance borrows no more than so many times itself: a comparison that varies less than others profits from that."""
_TIE = 1e-9
"""Statistics closer than that are equal: the observed signs must reach themselves however their sum is rounded."""


@dataclass(frozen=True)
class Judged:
    """One comparison: its p-value beside all others and `alone`, its simultaneous interval (None where an end is
    nowhere), and the sign of the difference that is claimed, 0 where none is.

    The sign is also that of every value in the interval.
    """

    p: float
    alone: float
    low: float | None
    high: float | None
    sign: int


@lru_cache(maxsize=8)
def flipped(seeds: int, seed: int = 0, most: int = 0) -> Array:
    """Which seeds a flip turns, flips x seeds of 0 and 1, the first turning none; a flip and its mirror are one.

    Every flip up to `EXACT` seeds; above, or where there would be more than `most`, random ones.
    """
    import numpy as np

    number = 2 ** max(0, seeds - 1)
    if number <= (most or 2 ** (EXACT - 1)):
        return (np.arange(number)[:, None] >> np.arange(seeds) & 1).astype(np.float64)
    bits = np.random.default_rng(seed).integers(0, 2, ((most or FLIPS), seeds)).astype(np.float64)
    bits[0] = 0
    return bits


def allowed(flips: int) -> int:
    """How many of so many flips a claim may be reached by, itself included."""
    return int(LEVEL * flips + _TIE)


def rivals(differences: Array, turned: Array) -> tuple[Array, Array]:
    """For every comparison, the largest |t| of all others under every flip; and the variance that all borrow from.

    The others are taken at their own means, as if these were true: so a comparison's answer does not depend on how
    large the others' differences are. Half of the variance in each |t| is its own, half is borrowed: the median of all,
    but at most `BORROWED` times its own and at least that part of it. Of a handful of seeds a variance is known badly,
    and where variants vary alike the others know it better. Those with fewer than `FEWEST` pairs can never be claimed,
    and are nobody's rival.
    """
    import numpy as np

    counts, _, rest = _centred(differences)
    variances = _variances(counts, rest)
    enough = counts >= FEWEST
    borrowed = variances
    if enough.any():
        middle = np.nanmedian(np.where(enough, variances, np.nan), axis=-2, keepdims=True)
        borrowed = np.clip(middle, variances / BORROWED, variances * BORROWED)
    scale = np.sqrt(np.maximum(counts * (variances + borrowed) / 2, 1e-300))
    # What is left of n differences beside their mean varies less than they do, by (n - 1) / n; and a |t| whose variance
    # is estimated varies more than these, as Student's t does: with the borrowed half by about (n - 1) / (n - 2), which
    # the referee finds to be enough. Together that is n / (n - 2).
    found = np.abs(rest @ (1 - 2 * turned).T) * np.sqrt(counts / np.maximum(counts - 2, 1)) / scale
    found = np.where(enough, found, 0.0)
    if found.shape[-2] < 2:
        return np.zeros_like(found), borrowed
    two = np.partition(found, -2, axis=-2)[..., -2:, :]
    return np.where(found == two[..., 1:, :], two[..., :1, :], two[..., 1:, :]), borrowed


def _centred(differences: Array) -> tuple[Array, Array, Array]:
    """How many differences there are, their mean, and what is left of each beside it (0 where there is none)."""
    import numpy as np

    present = ~np.isnan(differences)
    counts = present.sum(-1, keepdims=True)
    means = np.nan_to_num(differences).sum(-1, keepdims=True) / np.maximum(counts, 1)
    return counts, means, np.where(present, differences - means, 0.0)


def _variances(counts: Array, rest: Array) -> Array:
    import numpy as np

    found: Array = (rest**2).sum(-1, keepdims=True) / np.maximum(counts - 1, 1)
    return found


def ends(differences: Array, turned: Array, rival: Array, borrowed: Array) -> tuple[Array, Array]:
    """The shifts between which each flip reaches the observed |t|, comparisons x flips: the lower ends and the upper.

    A flip reaches the differences minus d where the mean of the turned ones, or of the others, lies beyond d, or where
    a rival's |t| does: both can be solved for d.
    """
    import numpy as np

    counts, mean, rest = _centred(differences)
    known, present = np.nan_to_num(differences), (~np.isnan(differences)).astype(np.float64)
    turned_counts, turned_sums, total = present @ turned.T, known @ turned.T, known.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = turned_sums / turned_counts, (total - turned_sums) / (counts - turned_counts)
        own, free = (rest**2).sum(-1, keepdims=True), counts * (counts - rival**2 / 2)
        reach = np.where(free > _TIE, rival * np.sqrt((own + counts * borrowed) / 2 / free), np.inf)
    idle = (turned_counts == 0) | (turned_counts == counts)
    low = np.where(idle, -np.inf, np.minimum(np.fmin(one, other), mean - reach))
    high = np.where(idle, np.inf, np.maximum(np.fmax(one, other), mean + reach))
    zero = _TIE * np.maximum(np.abs(known).max(-1, keepdims=True), 1e-300)
    return np.where(np.abs(low) < zero, 0.0, low), np.where(np.abs(high) < zero, 0.0, high)


def judge(looks: Sequence[Array], seed: int = 0) -> list[Judged]:
    """Every comparison in the last of the looks, which all have the same comparisons and seeds (NaN for those to come).

    What an earlier look claims stands. Raises `ValueError` without looks.
    """
    import numpy as np

    if not looks:
        raise ValueError("a test of no differences")
    turned = flipped(looks[0].shape[-1], seed)
    against = [rivals(look, turned) for look in looks]
    low, high = ends(looks[0], turned, *against[0])
    spare = allowed(len(turned))
    lows, highs = np.sort(low, axis=-1)[:, spare], np.sort(high, axis=-1)[:, -1 - spare]
    means = _centred(looks[0])[1]
    shares = _reached(looks[0], low, high)
    nobody, last = np.zeros_like(against[-1][0]), looks[-1]
    alone = _reached(last, *ends(last, turned, nobody, against[-1][1]))
    first = [
        Judged(
            float(share), float(own), _finite(below), _finite(above), int(np.sign(mean.item())) if share <= LEVEL else 0
        )
        for share, own, below, above, mean in zip(shares, alone, lows, highs, means, strict=True)
    ]
    if len(looks) == 1:
        return first
    return [
        _Looks(
            [look[place] for look in looks],
            [rival[place] for rival, _ in against],
            [float(borrowed[place].item()) for _, borrowed in against],
            turned,
        ).judged(before)
        for place, before in enumerate(first)
    ]


def _reached(differences: Array, low: Array, high: Array) -> Array:
    """The share of flips that reach the observed |t| of each comparison, by the ends of theirs."""
    import numpy as np

    mean = _centred(differences)[1]
    found: Array = np.where(mean > 0, low <= 0, np.where(mean < 0, high >= 0, True)).mean(-1)
    return found


def _finite(end: float) -> float | None:
    return float(end) if math.isfinite(end) else None


@dataclass(frozen=True)
class _Looks:
    """One comparison over several looks, with its rivals' largest |t| and the borrowed variance at each."""

    differences: Sequence[Array]
    rivals: Sequence[Array]
    borrowed: Sequence[float]
    turned: Array

    @cached_property
    def sums(self) -> list[tuple[Array, Array, Array]]:
        """For each look: the differences there are, and under every flip their sum and that of their signs."""
        import numpy as np

        signs = 1 - 2 * self.turned
        present = [~np.isnan(look) for look in self.differences]
        return [
            (look[mask], signs[:, mask] @ look[mask], signs[:, mask].sum(-1))
            for look, mask in zip(self.differences, present, strict=True)
        ]

    def refused(self, shift: float) -> tuple[float, int]:
        """The share of flips that reach the differences minus `shift`, and the sign of what is left of them on the mean
        if that is so few that the shift is refused, else 0; at the first look that refuses it, or at the last."""
        import numpy as np

        spent: Flags = np.zeros(len(self.turned), dtype=np.bool_)
        last, share = len(self.turned) - 1 - allowed(len(self.turned)), 1.0
        for (known, summed, signs), rival, borrowed in zip(self.sums, self.rivals, self.borrowed, strict=True):
            if len(known) < FEWEST:
                continue
            size = math.sqrt((float(((known - shift) ** 2).sum()) + len(known) * borrowed) / 2) or 1.0
            own = np.abs(summed - shift * signs) / size
            found = np.where(spent, np.inf, np.maximum(own, rival))
            counted = found >= own[0] - _TIE
            counted[0] = True
            share = float(counted.mean())
            if share <= LEVEL:
                return share, int(np.sign(known.mean() - shift))
            # Claimed under a flip: where the largest |t| is beyond that of the first flip that LEVEL has no room for.
            spent = spent | (found > np.partition(found, last)[last] + _TIE)
        return share, 0

    def judged(self, first: Judged) -> Judged:
        """P-value and interval over all looks, given those of the first, which stand where later ones contradict."""
        import numpy as np

        known = self.sums[-1][0]
        if len(known) < FEWEST:
            return first
        share, sign = self.refused(0.0)
        spread = float(np.ptp(known)) or abs(float(known.mean())) or 1.0
        start = max(float(known.mean()), -math.inf if first.low is None else first.low)
        start = min(start, math.inf if first.high is None else first.high)
        if sign * start < 0 or self.refused(start)[1]:
            return first
        return Judged(share, first.alone, self._end(start, -spread, sign), self._end(start, spread, sign), sign)

    def _end(self, inside: float, step: float, sign: int) -> float | None:
        """The last shift that is not refused, going from one that is not in the direction of `step`.

        0 is beyond it if and only if it is refused, which is known.
        """
        outside = inside + step
        if inside * step < 0:  # 0 lies on this side
            inside, outside = (inside, 0.0) if sign else (0.0, step)
        for _ in range(20):
            if self.refused(outside)[1]:
                break
            inside, outside, step = outside, outside + step, 2 * step
        else:
            return None
        for _ in range(16):
            middle = (inside + outside) / 2
            if self.refused(middle)[1]:
                outside = middle
            else:
                inside = middle
        return inside
