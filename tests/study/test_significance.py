"""The statistics of few seeds, on numbers whose answers are known."""

import itertools
import math
import random
import statistics

import numpy as np
import pytest

from afftool.study.collapses import collapsed, unseen
from afftool.study.flips import EXACT, judge
from afftool.study.power import detectable, detectable_deviations
from afftool.study.significance import (
    Comparison,
    compare,
    effect_size,
    hodges_lehmann,
    summarize,
)


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def of(*differences: float) -> Comparison:
    """One comparison alone, of these differences."""
    (found,) = compare({"a": by_seed(*differences), "b": by_seed(*[0.0] * len(differences))}, [("a", "b")])
    return found


def drawn(seed: int, variants: int, seeds: int, noise: float = 0.02) -> dict[str, dict[int, float]]:
    rng = random.Random(seed)
    return {name: by_seed(*(rng.gauss(0.5, noise) for _ in range(seeds))) for name in "abcdefgh"[:variants]}


def test_the_interval_of_a_median_is_of_two_scores_and_never_leaves_them() -> None:
    summary = summarize(by_seed(0.91, 0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93))
    assert (summary.low, summary.median, summary.high) == pytest.approx((0.91, 0.955, 0.99))
    assert summary.interval == "95%"
    assert summary.mean == pytest.approx(0.95375)


def test_a_few_scores_have_a_range_that_is_not_called_an_interval() -> None:
    summary = summarize({7: 0.25, 9: 0.5})
    assert (summary.mean, summary.low, summary.high, summary.interval) == (0.375, 0.25, 0.5, "range")


def test_a_failed_run_ranks_last_in_the_median_and_is_not_in_the_mean() -> None:
    summary = summarize(by_seed(0.5, 0.6, 0.7, 0.8, 0.9), failed=2)
    assert (summary.median, summary.low, summary.high) == (0.6, 0.0, 0.9)
    assert summary.mean == pytest.approx(0.7)


@pytest.mark.parametrize("count", [1, 3, 6, 9])
def test_differences_of_one_sign_give_the_smallest_p(count: int) -> None:
    values = [0.1 * (i + 1) for i in range(count)]
    assert of(*values).p == of(*values).p_corrected == pytest.approx(2 / 2**count)
    assert of(*(-v for v in values)).p == of(*values).p


def test_the_sign_flip_test_counts_what_enumeration_counts() -> None:
    values = [0.3, -0.1, 0.25, 0.05, -0.02, 0.4, 0.1]
    flipped = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in itertools.product((1, -1), repeat=7)
    ]
    expected = sum(total >= abs(sum(values)) - 1e-12 for total in flipped) / len(flipped)
    assert of(*values).p == of(*values).p_corrected == pytest.approx(expected)


def test_equal_scores_are_no_evidence() -> None:
    assert of(*[0.0] * 8).p_corrected == 1.0
    found = compare({name: by_seed(*[0.5] * 8) for name in "abc"}, [("b", "a"), ("c", "a")])
    assert {(c.claim, c.p_corrected) for c in found} == {("cannot tell", 1.0)}


def test_the_same_difference_at_every_seed_is_claimed_for_what_it_is() -> None:
    found = of(*[0.1] * 8)
    assert (found.claim, found.low, found.high) == ("better", pytest.approx(0.1), pytest.approx(0.1))


def test_many_seeds_are_flipped_at_random_and_repeatably() -> None:
    values = [0.01 * (i - 8) for i in range(20)]
    assert len(values) > EXACT
    assert of(*values) == of(*values)
    assert of(*values).p == pytest.approx(0.28, abs=0.02)  # by the normal approximation: |z| >= 0.3 / 0.266


@pytest.mark.parametrize("seeds", [8, 20])
def test_a_claim_is_made_where_0_lies_outside_the_interval_and_nowhere_else(seeds: int) -> None:
    rng, claims = random.Random(seeds), []
    for number in range(40):
        scores = drawn(number, 5, seeds)
        for name in "bcde":
            shift = rng.gauss(0, 0.03)
            scores[name] = {s: v + shift for s, v in scores[name].items()}
        for c in compare(scores, [(name, "a") for name in "bcde"]):
            assert c.low is not None
            assert c.high is not None
            sign = (c.low > 0) - (c.high < 0)
            assert c.withheld is not None or c.claim == {1: "better", -1: "worse", 0: "cannot tell"}[sign]
            assert c.p_corrected is not None
            assert (c.p_corrected <= 0.05) == (sign != 0)
            claims.append(c.claim)
    assert {"better", "worse", "cannot tell"} == set(claims)


def test_an_interval_holds_the_shifts_that_the_test_does_not_refuse() -> None:
    """Found otherwise: each shift is taken off one comparison's differences, and all are tested anew."""
    scores = drawn(3, 4, 8)
    pairs = [("b", "a"), ("c", "a"), ("d", "a")]
    found = compare(scores, pairs)[0]
    assert found.low is not None
    assert found.high is not None
    for end, inwards in ((found.low, 1e-6), (found.high, -1e-6)):
        for shift, refused in ((end + inwards, False), (end - inwards, True)):
            moved = scores | {"b": {s: v - shift for s, v in scores["b"].items()}}
            assert (compare(moved, pairs)[0].claim != "cannot tell") == refused


def test_a_claim_does_not_depend_on_how_large_the_other_differences_are() -> None:
    scores = drawn(4, 4, 8)
    pairs = [("b", "a"), ("c", "a"), ("d", "a")]
    far = scores | {"d": {s: v + 7 for s, v in scores["d"].items()}}
    assert compare(scores, pairs)[0].p_corrected == compare(far, pairs)[0].p_corrected


def test_a_comparison_that_can_claim_nothing_stands_in_nobodys_way() -> None:
    scores = drawn(5, 3, 8) | {"few": by_seed(*[0.9] * 3)}
    alone, beside = (compare(scores, [("b", "a"), *more]) for more in ([], [("few", "a")]))
    assert alone[0].p_corrected == beside[0].p_corrected
    assert (beside[1].seeds, beside[1].low, beside[1].claim) == (3, None, "cannot tell")


def test_five_seeds_can_claim_nothing_however_large_the_difference() -> None:
    one = of(*[0.8] * 5)
    assert one.difference == pytest.approx(0.8)
    assert one.p == pytest.approx(2 / 32)
    assert (one.claim, one.low, one.high, one.detectable) == ("cannot tell", None, None, None)


def test_a_clear_difference_is_claimed_in_its_direction() -> None:
    high, low = by_seed(*(0.8 + 0.01 * i for i in range(7))), by_seed(*(0.5 + 0.012 * i for i in range(7)))
    worse, better = compare({"high": high, "low": low}, [("low", "high"), ("high", "low")])
    assert (worse.claim, better.claim) == ("worse", "better")
    assert better.low is not None
    assert better.high is not None
    assert better.difference is not None
    assert 0 < better.low < better.difference < better.high
    assert (worse.low, worse.high) == pytest.approx((-better.high, -better.low))


def test_only_seeds_that_both_have_are_paired() -> None:
    (found,) = compare({"a": {0: 0.5, 1: 0.6, 3: 0.9}, "b": {1: 0.5, 2: 0.4, 3: 0.7}}, [("a", "b")])
    assert found.seeds == 2
    assert found.difference == pytest.approx(0.15)


def test_variants_without_a_common_seed_are_not_compared() -> None:
    (found,) = compare({"a": {0: 0.5}, "b": {}}, [("a", "b")])
    assert (found.seeds, found.p, found.claim) == (0, None, "cannot tell")


def test_equal_variants_are_seldom_told_apart() -> None:
    found = [compare(drawn(number, 4, 8), [(name, "a") for name in "bcd"]) for number in range(200)]
    claims = sum(any(c.claim != "cannot tell" for c in of) for of in found)
    assert claims <= 0.05 * 200 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_a_failed_run_counts_as_the_lowest_of_the_two_variants() -> None:
    scores = {"a": by_seed(*(0.7 + 0.01 * i for i in range(6))), "b": by_seed(*[0.6] * 8)}
    (found,) = compare(scores, [("a", "b")], failed={"a": {6, 7}})
    assert (found.seeds, found.failed) == (8, 2)
    assert found.difference == pytest.approx((sum(scores["a"].values()) + 2 * 0.6) / 8 - 0.6)


def test_survivors_are_not_better_for_having_lost_their_worst() -> None:
    rng, claims = random.Random(2), 0
    for _ in range(200):
        a, b = (by_seed(*(rng.gauss(0, 1) for _ in range(8))) for _ in "ab")
        kept = {seed: value for seed, value in a.items() if value > -0.52}
        (found,) = compare({"a": kept, "b": b}, [("a", "b")], failed={"a": a.keys() - kept.keys()})
        claims += found.claim == "better"
    assert claims <= 10


def test_a_run_far_below_its_variants_others_is_called_collapsed_and_a_wide_variant_has_none() -> None:
    scores = drawn(6, 3, 8)
    fell = scores | {"b": scores["b"] | {2: 0.1}}
    assert collapsed(scores) == {name: frozenset() for name in "abc"}
    assert collapsed(fell)["b"] == {2}
    wide = {seed: 0.5 + 0.2 * math.sin(seed * 2) for seed in range(8)}
    assert collapsed(scores | {"wide": wide})["wide"] == frozenset()
    assert collapsed({"a": by_seed(0.5, 0.5, 0.1)}) == {"a": frozenset()}


def test_a_collapse_is_set_apart_told_and_held_against_its_variant() -> None:
    base = drawn(7, 1, 9)["a"]
    better = {seed: value + 0.1 for seed, value in base.items()} | {4: 0.0}
    ((up,), (down,)) = (compare({"x": better, "y": base}, [pair]) for pair in (("x", "y"), ("y", "x")))
    for found in (up, down):
        assert (found.seeds, found.collapsed, found.claim) == (8, 1, "cannot tell")
        assert found.withheld is not None
        assert "more runs of x (1) collapsed than of y (0)" in found.withheld
    assert up.difference == pytest.approx(0.1)
    assert up.typical == pytest.approx(0.1)
    assert up.difference_of_all == pytest.approx((0.8 - base[4]) / 9)
    worse = {seed: value - 0.1 for seed, value in base.items()} | {4: 0.0}
    assert compare({"x": worse, "y": base}, [("x", "y")])[0].claim == "worse"


def test_so_many_runs_leave_so_many_collapses_unseen() -> None:
    assert unseen(8) == pytest.approx(0.312, abs=0.001)
    assert (1 - unseen(59)) ** 59 == pytest.approx(0.05)


def looks(scores: dict[str, dict[int, float]], *counts: int) -> Comparison:
    (found,) = compare(scores, [("b", "a")], looks=[range(count) for count in counts])
    return found


def test_a_look_that_could_claim_nothing_costs_nothing() -> None:
    scores = drawn(8, 2, 9)
    alone, after = looks(scores, 9), looks(scores, 5, 9)
    assert alone.p_corrected == after.p_corrected
    assert (after.low, after.high) == pytest.approx((alone.low, alone.high), abs=1e-4)


def test_what_an_earlier_look_claims_stands_and_what_it_spent_is_gone() -> None:
    up = {seed: 0.5 + 0.01 * (1 + seed % 3) for seed in range(6)}
    scores = {"a": by_seed(*[0.5] * 8), "b": up | {6: 0.46, 7: 0.46}}
    assert (looks(scores, 6, 8).claim, looks(scores, 8).claim) == ("better", "cannot tell")
    late = {"a": by_seed(*[0.0] * 10), "b": by_seed(-0.2, 1.1, 0.9, 1.3, 1.0, 0.3, 1.2, -0.6, 0.8, 1.2)}
    once, again = looks(late, 10), looks(late, 6, 8, 10)
    assert once.p_corrected is not None
    assert again.p_corrected is not None
    assert once.p_corrected < 0.05 < again.p_corrected
    assert (once.claim, again.claim) == ("better", "cannot tell")


def test_over_looks_too_a_claim_is_made_where_0_lies_outside_the_interval() -> None:
    claims = []
    for number in range(30):
        scores = drawn(number, 3, 9)
        scores["b"] = {s: v + 0.02 for s, v in scores["b"].items()}
        for c in compare(scores, [("b", "a"), ("c", "a")], looks=[range(6), range(8), range(9)]):
            assert c.low is not None
            assert c.high is not None
            assert c.claim == ("better" if c.low > 0 else "worse" if c.high < 0 else "cannot tell") or c.withheld
            claims.append(c.claim)
    assert {"better", "cannot tell"} <= set(claims)


def test_within_a_margin_is_the_same_beyond_it_nobody_can_tell() -> None:
    values = [0.001, -0.002, 0.0015, -0.001, 0.002, -0.0015, 0.0005, -0.0005]
    scores = {"a": by_seed(*(0.5 + v for v in values)), "b": by_seed(*[0.5] * 8)}
    claims = [compare(scores, [("a", "b")], margin=margin)[0].claim for margin in (None, 0.0005, 0.005)]
    assert claims == ["cannot tell", "cannot tell", "the same"]


def test_effect_size_is_the_corrected_standardised_mean() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    assert effect_size(values) == pytest.approx(2.5 / math.sqrt(5 / 3) * (1 - 3 / 11))
    assert effect_size([0.1, 0.1, 0.1]) is None or effect_size([0.1, 0.1, 0.1]) > 1e6
    assert effect_size([0.0] * 5) is None
    assert effect_size([0.3, 0.2]) is None


def test_the_robust_estimate_is_the_median_of_means_of_pairs() -> None:
    assert hodges_lehmann([1.0, 2.0, 6.0]) == 2.75  # of 1, 1.5, 2, 3.5, 4, 6
    assert hodges_lehmann([1.0, 2.0, 3.0, -1000.0]) == 1.25  # the fifth and sixth of ten, four of which are with -1000


@pytest.mark.parametrize(("seeds", "comparisons"), [(7, 1), (8, 6), (11, 3)])
def test_the_detectable_difference_is_found_four_times_in_five(seeds: int, comparisons: int) -> None:
    smallest = detectable_deviations(seeds, comparisons)
    assert smallest is not None
    rng, found = np.random.default_rng(11), 0
    for _ in range(400):
        scores = rng.normal(size=(comparisons + 1, seeds))
        scores[1] += smallest * math.sqrt(2)
        found += judge([scores[1:] - scores[0]])[0].sign > 0
    assert 0.73 <= found / 400 <= 0.87


def test_the_detectable_difference_is_a_range_as_wide_as_the_deviation_is_unknown() -> None:
    values = [0.1, -0.3, 0.4, 0.2, -0.1, 0.0, 0.3, 0.5]
    found = detectable(values, 6)
    assert found is not None
    smallest, low, high = found
    assert smallest == pytest.approx(detectable_deviations(8, 6) * statistics.stdev(values))  # type: ignore[operator]
    assert (low / smallest, high / smallest) == pytest.approx((0.661, 2.035), abs=0.001)  # chi-square of 7
    assert detectable(values[:5], 1) is None
    assert detectable([0.1] * 8, 1) is None


def test_more_seeds_show_smaller_differences_and_more_comparisons_need_larger_ones() -> None:
    by_seeds = [detectable_deviations(seeds, 3) or math.inf for seeds in (5, 6, 7, 8, 10, 14)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    assert by_seeds[0] == math.inf
    assert detectable_deviations(8, 1) < detectable_deviations(8, 6) < detectable_deviations(8, 21)  # type: ignore[operator]
