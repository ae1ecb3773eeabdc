"""The statistics of few seeds, on numbers whose answers are known."""

import itertools
import math
import random
import statistics

import pytest

from afftool.study.significance import (
    compare,
    detectable,
    effect_size,
    fewest_seeds,
    holm,
    sign_flip,
    smallest_p,
    summarize,
)


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_the_interval_of_a_mean_is_students() -> None:
    summary = summarize(by_seed(1.0, 2.0, 3.0, 4.0))
    half = 3.182446 * math.sqrt(5 / 3) / 2  # t(0.975, 3), deviation, root of four
    assert (summary.mean, summary.low, summary.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half), abs=1e-5)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    summary = summarize({7: 0.25})
    assert (summary.mean, summary.low, summary.high) == (0.25, None, None)


@pytest.mark.parametrize("count", [1, 3, 6, 9])
def test_differences_of_one_sign_give_the_smallest_p(count: int) -> None:
    values = [0.1 * (i + 1) for i in range(count)]
    assert sign_flip(values) == pytest.approx(2 / 2**count)
    assert sign_flip([-v for v in values]) == sign_flip(values)


def test_the_sign_flip_test_counts_what_enumeration_counts() -> None:
    values = [0.3, -0.1, 0.25, 0.05, -0.02, 0.4, 0.1]
    flipped = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in itertools.product((1, -1), repeat=7)
    ]
    expected = sum(total >= abs(sum(values)) - 1e-12 for total in flipped) / len(flipped)
    assert sign_flip(values) == pytest.approx(expected)


def test_equal_scores_are_no_evidence() -> None:
    assert sign_flip([0.0] * 8) == 1.0


def test_many_seeds_are_flipped_at_random_and_repeatably() -> None:
    values = [0.01 * (i - 8) for i in range(20)]
    assert sign_flip(values) == sign_flip(values)
    assert sign_flip(values) == pytest.approx(0.28, abs=0.01)  # by the normal approximation: |z| >= 0.3 / 0.266


def test_holm_multiplies_step_by_step_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, None, 0.001]) == [1.0, None, pytest.approx(0.003)]


def test_enough_seeds_are_those_whose_best_comparison_can_be_claimed() -> None:
    assert [fewest_seeds(m) for m in (1, 2, 3, 4, 6)] == [6, 7, 7, 8, 8]
    for comparisons in range(1, 12):
        seeds = fewest_seeds(comparisons)
        assert smallest_p(seeds, comparisons) <= 0.05
        assert seeds == 6 or smallest_p(seeds - 1, comparisons) > 0.05


def test_five_seeds_can_claim_nothing_however_large_the_difference() -> None:
    (one,) = compare({"a": by_seed(*[0.9] * 5), "b": by_seed(*[0.1] * 5)}, [("a", "b")])
    assert one.difference == pytest.approx(0.8)
    assert one.p == pytest.approx(2 / 32)
    assert (one.claim, one.detectable) == ("cannot tell", None)


def test_a_clear_difference_is_claimed_in_its_direction() -> None:
    high, low = by_seed(*(0.8 + 0.01 * i for i in range(7))), by_seed(*(0.5 + 0.012 * i for i in range(7)))
    worse, better = compare({"high": high, "low": low}, [("low", "high"), ("high", "low")])
    assert (worse.claim, better.claim) == ("worse", "better")
    assert better.low is not None
    assert 0 < better.low < better.difference < better.high
    assert better.p_corrected == pytest.approx(2 * 2 / 2**7)


def test_only_seeds_that_both_have_are_paired() -> None:
    (found,) = compare({"a": {0: 0.5, 1: 0.6, 3: 0.9}, "b": {1: 0.5, 2: 0.4, 3: 0.7}}, [("a", "b")])
    assert found.seeds == 2
    assert found.difference == pytest.approx(0.15)


def test_variants_without_a_common_seed_are_not_compared() -> None:
    (found,) = compare({"a": {0: 0.5}, "b": {}}, [("a", "b")])
    assert (found.seeds, found.p, found.claim) == (0, None, "cannot tell")


def test_equal_variants_are_seldom_told_apart() -> None:
    rng, claims = random.Random(3), 0
    for _ in range(200):
        scores = {name: by_seed(*(rng.gauss(0.5, 0.02) for _ in range(8))) for name in "abcd"}
        found = compare(scores, [(name, "a") for name in "bcd"])
        claims += any(c.claim != "cannot tell" for c in found)
    assert claims <= 0.05 * 200 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_effect_size_is_the_corrected_standardised_mean() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    assert effect_size(values) == pytest.approx(2.5 / math.sqrt(5 / 3) * (1 - 3 / 11))
    assert effect_size([0.1, 0.1, 0.1]) is None or effect_size([0.1, 0.1, 0.1]) > 1e6
    assert effect_size([0.0] * 5) is None
    assert effect_size([0.3, 0.2]) is None


def test_the_detectable_difference_is_found_about_four_times_in_five() -> None:
    rng = random.Random(5)
    spread = [rng.gauss(0, 1) for _ in range(12)]
    scale = math.sqrt(sum((v - sum(spread) / 12) ** 2 for v in spread) / 11)
    smallest = detectable(spread, 1)
    assert smallest is not None
    found = 0
    for _ in range(300):
        differences = [rng.gauss(smallest, scale) for _ in range(12)]
        found += sign_flip(differences) <= 0.05
    assert 0.7 <= found / 300 <= 0.9


@pytest.mark.parametrize(("seeds", "comparisons"), [(7, 2), (8, 6)])
def test_the_detectable_difference_holds_at_the_fewest_seeds_that_can_claim_any(seeds: int, comparisons: int) -> None:
    """There the test needs all differences of one sign, which a formula for large samples knows nothing of."""
    rng = random.Random(11)
    spread = [rng.gauss(0, 1) for _ in range(seeds)]
    smallest = detectable(spread, comparisons)
    assert smallest is not None
    found = 0
    for _ in range(600):
        differences = [rng.gauss(smallest, statistics.stdev(spread)) for _ in range(seeds)]
        found += sign_flip(differences) <= 0.05 / comparisons
    assert 0.75 <= found / 600 <= 0.85
