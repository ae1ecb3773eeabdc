"""Several studies as one, on numbers whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, trim_mean

from afftool.study.aggregates import Aggregate, Estimate, Study, aggregate, middle


def scores(level: float, luck: int, seeds: int = 8) -> list[float]:
    return (level + np.random.default_rng(luck).normal(0, 0.01, seeds)).tolist()


def studies(gains: Sequence[float], seeds: int = 8) -> list[Study]:
    """A study a gain, at levels far apart."""
    return [
        {"base": scores(0.5 + 0.1 * place, place, seeds), "other": scores(0.5 + 0.1 * place + gain, 10 + place, seeds)}
        for place, gain in enumerate(gains)
    ]


def width(estimate: Estimate | None) -> float:
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low <= estimate.value <= estimate.high
    return estimate.high - estimate.low


def test_the_interquartile_mean_is_of_the_middle_half_with_its_borders_in_part() -> None:
    values = scores(0.5, 0)
    assert middle(values) == pytest.approx(trim_mean(values, 0.25))
    assert middle([0, 1, 2, 3, 4, 100]) == pytest.approx((0.5 * 1 + 2 + 3 + 0.5 * 4) / 3)
    assert middle([7.0]) == 7
    with pytest.raises(ValueError, match="no values"):
        middle([])


def test_a_gain_is_above_the_baseline_of_the_same_study_whatever_its_level() -> None:
    (found,) = [one for name, one in aggregate(studies([0.03, 0.03]), "base").items() if name == "other"]
    assert found.gain is not None
    assert found.gain.value == pytest.approx(0.03, abs=0.01)
    assert width(found.gain) < 0.04


def test_one_study_of_four_that_says_otherwise_is_trimmed_away() -> None:
    gain = aggregate(studies([0.0, 0.0, 0.0, 0.4]), "base")["other"].gain
    assert gain is not None
    assert gain.value < 0.02


def test_the_chance_of_scoring_higher_is_mann_and_whitneys_averaged_over_studies() -> None:
    given = [*studies([0.0, 0.01])]
    expected = np.mean([mannwhitneyu(one["other"], one["base"]).statistic / 64 for one in given])
    found = aggregate(given, "base")["other"].improvement
    assert found is not None
    assert found.value == pytest.approx(expected)
    ties = aggregate([{"base": [0.5] * 6, "other": [0.5] * 6}] * 2, "base")["other"].improvement
    assert ties is not None
    assert ties.value == 0.5


def test_runs_that_all_agree_leave_a_chance_that_is_not_certain() -> None:
    found = aggregate(studies([0.2, 0.2]), "base")["other"].improvement
    assert found is not None
    assert found.value == found.high == 1
    assert found.low == pytest.approx(16 / (16 + 1.96**2), abs=1e-4)  # Wilson's, for all of sixteen


def test_the_profile_is_the_share_of_runs_above_each_threshold() -> None:
    given = studies([0.0, 0.02])
    gains = [score - middle(one["base"]) for one in given for score in one["other"]]
    thresholds = (-0.02, 0.0, 0.01, 0.05)
    profile = aggregate(given, "base", thresholds)["other"].profile
    assert [one.value for one in profile] == pytest.approx([np.mean(np.array(gains) > t) for t in thresholds])
    assert all(width(one) > 0 for one in profile)


def test_every_study_counts_alike_however_many_seeds_it_has() -> None:
    small, large = {"base": [0.5] * 6, "other": [0.5] * 6}, {"base": [0.5] * 60, "other": [0.7] * 60}
    found = aggregate([small, large], "base", [0.1])["other"]
    assert found.improvement is not None
    assert found.improvement.value == pytest.approx(0.75)
    assert found.profile[0].value == pytest.approx(0.5)


def test_the_baseline_has_a_profile_and_no_gain_on_itself() -> None:
    found = aggregate(studies([0.0, 0.0]), "base", [0.0])["base"]
    assert (found.gain, found.improvement) == (None, None)
    assert 0 < found.profile[0].value < 1


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_below_six_seeds_there_are_numbers_without_intervals(seeds: int) -> None:
    found = aggregate(studies([0.01, 0.02], seeds), "base", [0.0])["other"]
    assert all(one is not None and one.low is None for one in (found.gain, found.improvement, *found.profile))


def test_the_same_numbers_give_the_same_intervals() -> None:
    def found(seed: int) -> dict[str, Aggregate]:
        return aggregate(studies([0.01, 0.02]), "base", seed=seed)

    assert found(0) == found(0) != found(1)
