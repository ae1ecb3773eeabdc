"""Claims of ablations.

Scores are in deviations of a run unless it is said otherwise; seeds correlate by 0.05. A claim is about a typical run.
So a study of two variants of equal means, of which one collapses in a tenth of its runs, may well claim something: the
typical run of that one is better by a tenth of the depth. Where a collapse is seen the claim is withheld; where none is
(in 43% of studies of eight seeds) the numbers are those of a better variant, and no test can tell: one that holds its
level for the mean of every distribution has no power against any (Bahadur and Savage 1956), and an interval for the
mean of scores that are only known to lie in [0, 1] is 96 points wide to either side at eight seeds (Hoeffding 1963).
The report says how often collapses could go unseen. Runs only five deviations below are seldom called collapsed: to
the test they make a variant worse on the mean, and some 5.3% of studies say so.

The test of one comparison is exact: of the flips of any scores, 3.1% are claimed at six seeds, 4.7% at eight, 4.9% at
ten, 4.99% at fourteen, all looks together; so what is shown of it lies about that, a little above 5% as well as below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from afftool.study.collapses import collapsed
from afftool.study.power import detectable_deviations
from afftool.study.significance import Comparison, compare, summarize
from refereed.trial import Run, Trial
from refereed.worlds import Rng, Samples

Noise = Callable[[Rng, tuple[int, ...]], Samples]
"""Scores beside their variant's level, with a deviation of about 1."""
CORRELATION = 0.05
SIX = [(f"v{number}", "base") for number in range(1, 7)]
ONE = SIX[:1]


def normal(rng: Rng, shape: tuple[int, ...]) -> Samples:
    return rng.normal(size=shape)


def heavy_tailed(rng: Rng, shape: tuple[int, ...]) -> Samples:
    return rng.standard_t(3, shape) / np.sqrt(3)


def skewed(rng: Rng, shape: tuple[int, ...]) -> Samples:
    """A long tail of bad runs, as scores near their ceiling have."""
    return 1 - rng.exponential(1, shape)


def scored(rng: Rng, seeds: int, variants: int, noise: Noise = normal) -> Samples:
    """Variants x seeds of equals, the baseline first."""
    own, shared = noise(rng, (variants, seeds)), rng.normal(size=seeds)
    return np.sqrt(1 - CORRELATION) * own + np.sqrt(CORRELATION) * shared


def named(scores: Samples) -> dict[str, dict[int, float]]:
    """Scores by variant and seed, without those that are not a number."""
    names = ["base", *(f"v{number}" for number in range(1, len(scores)))]
    return {
        name: {seed: float(x) for seed, x in enumerate(row) if not np.isnan(x)}
        for name, row in zip(names, scores, strict=True)
    }


def claimed(found: Sequence[Comparison], *what: str) -> bool:
    return any(c.claim in (what or ("better", "worse")) for c in found)


def equals(seeds: int, pairs: list[tuple[str, str]], noise: Noise = normal, spread: Sequence[float] = ()) -> Run:
    """Whether a study of equals claims a difference; `spread` are the deviations of its first, from the baseline on."""

    def run(rng: Rng) -> bool:
        scores = scored(rng, seeds, len(pairs) + 1, noise)
        scores[: len(spread)] *= np.array(spread)[:, None]
        return claimed(compare(named(scores), pairs))

    return run


def covers(seeds: int, effects: Sequence[float], noise: Noise = normal) -> Run:
    """Whether the intervals of all comparisons hold the true differences."""

    def run(rng: Rng) -> bool:
        scores = scored(rng, seeds, 7, noise)
        scores[1:] += np.array(effects)[:, None]
        found = compare(named(scores), SIX)
        return all(
            c.low is not None and c.high is not None and c.low <= effect <= c.high
            for c, effect in zip(found, effects, strict=True)
        )

    return run


def agree(rng: Rng) -> bool:
    """Whether each claim says what its interval says."""
    scores = scored(rng, 8, 7)
    scores[1:] += rng.normal(0, 1, 6)[:, None]
    said = {"better": 1, "worse": -1, "cannot tell": 0}
    shown = [
        (said[c.claim], (c.low is not None and c.low > 0) - (c.high is not None and c.high < 0))
        for c in compare(named(scores), SIX)
        if c.withheld is None
    ]
    return all(claim == interval for claim, interval in shown)


def looked_at(*looks: int, comparisons: list[tuple[str, str]] = ONE) -> Run:
    """Whether equals are told apart at any look of a study that gets more seeds until something shows."""

    def run(rng: Rng) -> bool:
        scores = named(scored(rng, looks[-1], len(comparisons) + 1))
        return claimed(compare(scores, comparisons, looks=[range(look) for look in looks]))

    return run


def loses_its_worst(seeds: int) -> Run:
    """Whether a variant that fails wherever it would have been among the worst 30% is called better than its equal."""

    def run(rng: Rng) -> bool:
        scores = scored(rng, seeds, 2)
        gone = np.flatnonzero(scores[1] < -0.524)
        scores[1, gone] = np.nan
        return claimed(compare(named(scores), ONE, failed={"v1": gone.tolist()}), "better")

    return run


def collapses(seeds: int, depth: float, *, equal_means: bool = False, comparisons: int = 1) -> Run:
    """Whether a difference is claimed from one variant that collapses in a tenth of its runs, all else being equal."""

    def run(rng: Rng) -> bool:
        scores = scored(rng, seeds, comparisons + 1)
        scores[1] -= depth * (rng.random(seeds) < 0.1) - (0.1 * depth if equal_means else 0)
        return claimed(compare(named(scores), SIX[:comparisons])[:1])

    return run


def named_for_nothing(noise: Noise) -> Run:
    def run(rng: Rng) -> bool:
        return any(collapsed(named(scored(rng, 8, 7, noise))).values())

    return run


def found_collapse(rng: Rng) -> bool:
    """Whether a run ten deviations below its variant is named."""
    scores = scored(rng, 8, 7)
    scores[1, 0] -= 10
    return 0 in collapsed(named(scores))["v1"]


def apart(difference: float, margin: float) -> Run:
    """Whether two variants so far apart are called the same within a margin."""

    def run(rng: Rng) -> bool:
        scores = scored(rng, 12, 2) * 0.2
        scores[1] += difference
        return claimed(compare(named(scores), ONE, margin=margin), "the same")

    return run


def near_one(rng: Rng, seeds: int) -> Samples:
    """Scores near 0.98 with a tail of worse ones, as shares below 1 have it."""
    return 1 / (1 + np.exp(-rng.normal(4, 0.8, seeds)))


def median_covered(seeds: int, noise: Callable[[Rng, int], Samples], truth: float) -> Run:
    def run(rng: Rng) -> bool:
        found = summarize(dict(enumerate(noise(rng, seeds).tolist())))
        assert 0 <= found.low <= found.high <= 1
        return found.low <= truth <= found.high

    return run


def collapsing(rng: Rng, seeds: int) -> Samples:
    """Scores near 0.9, of which a tenth collapse to a tenth."""
    return np.where(rng.random(seeds) < 0.1, 0.1, rng.normal(0.9, 0.01, seeds))


COLLAPSING_MEDIAN = 0.9 + 0.01 * -0.1397
"""Where nine tenths of a normal distribution and a tenth far below it have their middle: at Phi(z) = 4/9."""


def holm(scores: dict[str, dict[int, float]]) -> list[bool]:
    """What the sign-flip tests of each comparison alone claim, corrected by Holm: the reference for power."""
    p = [compare(scores, [pair])[0].p or 1.0 for pair in SIX]
    found, ordered = [False] * len(p), sorted(range(len(p)), key=p.__getitem__)
    for rank, place in enumerate(ordered):
        if p[place] * (len(p) - rank) > 0.05:
            break
        found[place] = True
    return found


def shifted(
    rng: Rng, seeds: int, effect: float, different: int | None, quiet: bool = False
) -> tuple[dict[str, dict[int, float]], list[int]]:
    """Six variants of which so many, or any number, are better than the baseline; and which."""
    scores = scored(rng, seeds, 7)
    scores[:2] *= 1 / 3 if quiet else 1
    better = list(range(different or int(rng.integers(1, 7))))
    scores[1:][better] += effect
    return named(scores), better


def no_less_than_holm(seeds: int, effect: float) -> Run:
    """Whether the joint test finds more of the better variants; says nothing where both find as many."""

    def run(rng: Rng) -> bool | None:
        scores, better = shifted(rng, seeds, effect, None)
        found, reference = compare(scores, SIX), holm(scores)
        joint, single = sum(found[i].claim == "better" for i in better), sum(reference[i] for i in better)
        return None if joint == single else joint > single

    return run


def power(seeds: int, effect: float, different: int, *, reference: bool = False, quiet: bool = False) -> Run:
    """Whether the first of so many better variants is found; `quiet`: it and the baseline vary a third as much."""

    def run(rng: Rng) -> bool:
        scores, _ = shifted(rng, seeds, effect, different, quiet)
        return holm(scores)[0] if reference else compare(scores, SIX)[0].claim == "better"

    return run


def as_planned(seeds: int, comparisons: int) -> Run:
    """Whether the difference that is said to show in 80% of studies shows."""

    def run(rng: Rng) -> bool:
        scores = rng.normal(size=(comparisons + 1, seeds))
        scores[1] += np.sqrt(2) * (detectable_deviations(seeds, comparisons) or 0)
        return compare(named(scores), SIX[:comparisons])[0].claim == "better"

    return run


def _trial(what: str, world: str, run: Run, runs: int = 600, few: int = 0, **wanted: float) -> Trial:
    return Trial(what=what, world=world, run=run, runs=runs, few=few, **wanted)


FALSE, COVERS = "claims a difference between equals", "intervals of six differences hold all"
TRIALS: tuple[Trial, ...] = (
    _trial(FALSE, "6 comparisons, 6 seeds", equals(6, SIX), 1500, most=0.05),
    _trial(FALSE, "6 comparisons, 8 seeds", equals(8, SIX), 1500, 100, most=0.05),
    _trial(FALSE, "6 comparisons, 7 seeds", equals(7, SIX), 1500, most=0.05),
    _trial(FALSE, "6 comparisons, 10 seeds", equals(10, SIX), 1500, most=0.05),
    _trial(FALSE, "1 comparison, 8 seeds", equals(8, ONE), 1500, 100, most=0.05),
    _trial(FALSE, "6 comparisons, 8 seeds, heavy tails", equals(8, SIX, heavy_tailed), 1500, 100, most=0.05),
    _trial(FALSE, "6 comparisons, 8 seeds, skewed", equals(8, SIX, skewed), 1500, most=0.05),
    _trial(
        FALSE,
        "6 comparisons, 8 seeds, the baseline varies 3 times as much",
        equals(8, SIX, spread=[3]),
        1000,
        most=0.05,
    ),
    _trial(
        FALSE,
        "6 comparisons, 8 seeds, a variant varies 3 times as much",
        equals(8, SIX, spread=[1, 3]),
        1000,
        most=0.05,
    ),
    _trial(COVERS, "8 seeds, equals", covers(8, [0] * 6), least=0.93),
    _trial(COVERS, "8 seeds, 0 to 5 deviations apart", covers(8, range(6)), 600, 40, least=0.93),
    _trial(COVERS, "8 seeds, 0 to 5 deviations apart, heavy tails", covers(8, range(6), heavy_tailed), least=0.93),
    _trial("a claim says what its interval says", "6 comparisons, 8 seeds", agree, 300, 30, least=1.0),
    _trial(FALSE, "6 seeds planned, then 10", looked_at(6, 10), 3000, most=0.05),
    _trial(FALSE, "6 seeds planned, then 10 and 12", looked_at(6, 10, 12), 1500, most=0.05),
    _trial(FALSE, "6 seeds planned, then 10, 12 and 14", looked_at(6, 10, 12, 14), 1500, most=0.05),
    _trial(FALSE, "6 seeds planned, then 7, 8, 9 and 10", looked_at(6, 7, 8, 9, 10), 1000, 40, most=0.05),
    _trial(FALSE, "8 seeds planned, then 10; 6 comparisons", looked_at(8, 10, comparisons=SIX), 1000, most=0.05),
    _trial("better, though it loses its worst 30% of runs", "8 seeds", loses_its_worst(8), 1500, 100, most=0.05),
    _trial("better, though it loses its worst 30% of runs", "12 seeds", loses_its_worst(12), most=0.05),
    *(
        _trial(
            "claims a difference between equal typical runs",
            f"{seeds} seeds, one collapses in 10% of runs by {depth} deviations",
            collapses(seeds, depth),
            1000,
            100 if (seeds, depth) == (8, 10) else 0,
            most=0.05,
        )
        for seeds, depth in ((8, 5), (8, 10), (8, 30), (10, 10), (14, 10))
    ),
    _trial(
        "claims a difference between equal typical runs",
        "8 seeds, one of six collapses in 10% of runs by 10 deviations",
        collapses(8, 10, comparisons=6),
        1000,
        most=0.05,
    ),
    _trial(
        "claims a difference between equal means",
        "8 seeds, one collapses in 10% of runs by 10 deviations, and its typical run is better by 1",
        collapses(8, 10, equal_means=True),
        1000,
    ),
    _trial("a run is called collapsed for nothing", "7 variants, 8 seeds", named_for_nothing(normal), most=0.02),
    _trial(
        "a run is called collapsed for nothing", "7 variants, 8 seeds, heavy tails", named_for_nothing(heavy_tailed)
    ),
    _trial("a run ten deviations below is named", "7 variants, 8 seeds", found_collapse),
    _trial("the same within 0.5", "0.5 apart, 12 seeds of deviation 0.2", apart(0.5, 0.5), 1500, 100, most=0.05),
    _trial("the same within 0.5", "equal, 12 seeds of deviation 0.2", apart(0, 0.5)),
    *(
        _trial("the interval of the median holds", world, median_covered(seeds, noise, truth), 2000, few, least=0.93)
        for seeds, few in ((6, 0), (8, 200), (10, 0))
        for world, noise, truth in (
            (f"{seeds} seeds, scores near 0.98", near_one, float(1 / (1 + np.exp(-4)))),
            (f"{seeds} seeds, a tenth of them collapsed", collapsing, COLLAPSING_MEDIAN),
        )
    ),
    *(
        _trial(
            "finds more than Holm, where they find differently many",
            f"1 to 6 of 6 better by {effect:g}, {seeds} seeds",
            no_less_than_holm(seeds, effect),
            400,
            40 if (seeds, effect) == (8, 1.5) else 0,
            least=0.5,
        )
        for seeds in (6, 8, 10)
        for effect in (1, 1.5, 2)
    ),
    *(
        _trial(
            f"a better one of six is found{' (Holm)' if reference else ''}",
            f"{different} of 6 better by {effect:g}, {seeds} seeds",
            power(seeds, effect, different, reference=reference),
            400,
        )
        for different in (1, 6)
        for seeds, effect in ((6, 2), (8, 1.5), (8, 2), (10, 1.5))
        for reference in (False, True)
    ),
    *(
        _trial(
            f"a better one of six is found{' (Holm)' if reference else ''}",
            f"1 of 6 better by 0.7, {seeds} seeds, it and the baseline vary a third as much as the others",
            power(seeds, 0.7, 1, reference=reference, quiet=True),
            400,
        )
        for seeds in (8, 10)
        for reference in (False, True)
    ),
    *(
        _trial(
            "what shows in 80% shows in", f"{seeds} seeds, {count} comparisons", as_planned(seeds, count), least=0.76
        )
        for seeds, count in ((7, 2), (8, 6), (12, 6))
    ),
)
