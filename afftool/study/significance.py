"""What a handful of seeds can say: medians with intervals, paired differences, and what cannot be claimed.

Pure functions of numbers; every random choice has an explicit seed. Differences are taken seed by seed, because all
variants see the same data in the same order and start from the same host; `flips` tests them. What is claimed is about
a typical run: one that failed counts as the lowest of its comparison, one that collapsed is set apart, named, and held
against its variant.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from afftool.stats import median_interval
from afftool.study.collapses import collapsed
from afftool.study.flips import Judged, judge
from afftool.study.power import detectable

if TYPE_CHECKING:
    from afftool.study.flips import Array

Scores = Mapping[str, Mapping[int, float]]
"""A variant's score at each seed."""
Failed = Mapping[str, Collection[int]]
"""The seeds at which a variant's training failed, so that it has no score."""
Claim = Literal["better", "worse", "the same", "cannot tell"]
"""What may be said of a variant beside another. (*Verdict* is the gate's word.)"""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One variant's scores by seed, their mean and their median.

    `low` and `high` bound the 95% interval of the median (two order statistics; a failed run ranks last, as 0), and
    are the lowest and highest score where `interval` is "range": below six runs there is no such interval.
    """

    values: dict[int, float]
    mean: float
    median: float
    low: float
    high: float
    interval: Literal["95%", "range"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`variant` minus `against`, paired by seed, of the runs that did not collapse.

    `low` and `high` bound the interval of the mean difference: those of all comparisons hold together with 95%, and 0
    lies outside if and only if `variant` is claimed to be better or worse, or `withheld` says why it is not. `effect`
    is the mean over the deviation of the differences (Cohen's d for pairs, Hedges' correction); `p` is of the sign-flip
    test of this comparison alone, `p_corrected` of the joint one; `detectable` is the smallest true difference that
    four in five such studies show, known to no more than `detectable_low` to `detectable_high` (95%), None where they
    could not show any. `typical` is the Hodges-Lehmann estimate over all pairs, collapsed ones too. `failed` pairs
    count the run that failed as the lowest of the two variants', `collapsed` pairs are set apart; `difference_of_all`
    is the mean with them. `margin` is the difference that the user calls none.
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
    typical: float | None = None
    detectable_low: float | None = None
    detectable_high: float | None = None
    failed: int | None = None
    collapsed: int | None = None
    difference_of_all: float | None = None
    margin: float | None = None
    withheld: str | None = None

    @property
    def within(self) -> bool:
        """Whether the whole interval lies within the margin, whatever else is claimed."""
        return None not in (self.margin, self.low, self.high) and max(abs(self.low or 0.0), abs(self.high or 0.0)) <= (
            self.margin or 0.0
        )


def summarize(values: Mapping[int, float], failed: int = 0) -> Summary:
    """Mean and median of scores, and what is known of the median. Raises `ValueError` without values."""
    numbers = list(values.values())
    ranked = [0.0] * failed + numbers
    known = median_interval(ranked)
    return Summary(
        values=dict(sorted(values.items())),
        mean=statistics.fmean(numbers),
        median=statistics.median(ranked),
        low=known.low if known else min(numbers),
        high=known.high if known else max(numbers),
        interval="95%" if known else "range",
    )


def compare(
    scores: Scores,
    pairs: Sequence[tuple[str, str]],
    *,
    failed: Failed | None = None,
    looks: Sequence[Collection[int]] = (),
    margin: float | None = None,
    seed: int = 0,
) -> list[Comparison]:
    """Compare each (variant, against) by the seeds both have, all together.

    `looks` are the seeds of every look at this study, each with more than the one before, the last the present one;
    without them this is the first. With a `margin`, "the same" is a claim too.
    """
    failed = failed or {}
    seeds = sorted({s for of in (*scores.values(), *failed.values()) for s in of})
    paired = [_paired(scores, pairs, failed, set(look), seeds) for look in looks or (seeds,)]
    judged = judge([differences for differences, _ in paired], seed) if pairs and seeds else []
    if not judged:
        return [Comparison(variant=variant, against=against, seeds=0) for variant, against in pairs]
    return [
        _compared(pair, differences, facts, joint, len(pairs), margin)
        for pair, differences, facts, joint in zip(pairs, paired[-1][0], paired[-1][1], judged, strict=True)
    ]


@dataclass(frozen=True)
class _Facts:
    """What a comparison leaves out or puts in: the differences with collapsed runs, how many failed, who collapsed."""

    every: list[float]
    failed: int
    collapsed: tuple[int, int]


def _paired(
    scores: Scores, pairs: Sequence[tuple[str, str]], failed: Failed, look: set[int], seeds: Sequence[int]
) -> tuple[Array, list[_Facts]]:
    """The differences of a look, pairs x seeds, NaN where there is none or a run collapsed; and what else there is."""
    import numpy as np

    seen = {name: {s: value for s, value in of.items() if s in look} for name, of in scores.items()}
    fell = collapsed(seen)
    differences, facts = np.full((len(pairs), len(seeds)), np.nan), []
    for row, names in enumerate(pairs):
        runs = [dict(seen.get(name, {})) for name in names]
        apart = [fell.get(name, frozenset()) for name in names]
        lost: set[int] = set()
        if all(runs):
            lowest = min(value for of, odd in zip(runs, apart, strict=True) for s, value in of.items() if s not in odd)
            for name, of in zip(names, runs, strict=True):
                gone = look.intersection(failed.get(name, ()))
                of |= dict.fromkeys(gone, lowest)
                lost |= gone
        both = sorted(runs[0].keys() & runs[1].keys())
        every = {s: runs[0][s] - runs[1][s] for s in both}
        for place, s in enumerate(seeds):
            if s in every and s not in apart[0] | apart[1]:
                differences[row, place] = every[s]
        facts.append(_Facts(list(every.values()), len(lost & every.keys()), (len(apart[0]), len(apart[1]))))
    return differences, facts


def _compared(
    pair: tuple[str, str],
    differences: Array,
    facts: _Facts,
    joint: Judged,
    comparisons: int,
    margin: float | None,
) -> Comparison:
    import numpy as np

    values = [float(value) for value in differences[~np.isnan(differences)]]
    apart = len(facts.every) - len(values)
    smallest = detectable(values, comparisons) or (None, None, None)
    found = Comparison(
        variant=pair[0],
        against=pair[1],
        seeds=len(values),
        difference=statistics.fmean(values) if values else None,
        low=joint.low,
        high=joint.high,
        effect=effect_size(values),
        p=joint.alone if values else None,
        p_corrected=joint.p if values else None,
        detectable=smallest[0],
        detectable_low=smallest[1],
        detectable_high=smallest[2],
        typical=hodges_lehmann(facts.every) if facts.every else None,
        failed=facts.failed or None,
        collapsed=apart or None,
        difference_of_all=statistics.fmean(facts.every) if apart else None,
        margin=margin,
    )
    return _claimed(found, joint.sign, facts.collapsed)


def _claimed(found: Comparison, sign: int, collapses: tuple[int, int]) -> Comparison:
    """With what may be claimed, or why it may not.

    "The same" is claimed by the interval that is shown, so it agrees with it and holds beside all other claims. Two
    one-sided tests at 5% would ask less, and say it of variants of which the interval reaches beyond the margin.
    """
    mine, theirs = collapses
    claim: Claim = "better" if sign > 0 else "worse"
    one, other = f"{found.variant} ({mine})", f"{found.against} ({theirs})"
    if sign and (mine > theirs if sign > 0 else theirs > mine):
        fell, held = (one, other) if sign > 0 else (other, one)
        why = f"its typical run is {claim}, but more runs of {fell} collapsed than of {held}"
        return dataclasses.replace(found, withheld=why)
    if sign:
        return dataclasses.replace(found, claim=claim)
    if found.within and mine != theirs:
        return dataclasses.replace(found, withheld=f"typical runs are alike, but runs of {one} and {other} collapsed")
    return dataclasses.replace(found, claim="the same") if found.within else found


def hodges_lehmann(differences: Sequence[float]) -> float:
    """The median of the means of all pairs of differences, each with itself too: of odd ones, up to 29% do no harm.

    Hodges and Lehmann 1963. Raises `ValueError` without differences.
    """
    if not differences:
        raise ValueError("an estimate of no differences")
    return statistics.median((a + b) / 2 for i, a in enumerate(differences) for b in differences[i:])


def effect_size(differences: Sequence[float]) -> float | None:
    """Mean over standard deviation with Hedges' small-sample correction; None where that is no number."""
    if len(differences) < 3 or not (deviation := statistics.stdev(differences)):
        return None
    correction = 1 - 3 / (4 * (len(differences) - 1) - 1)
    return statistics.fmean(differences) / deviation * correction
