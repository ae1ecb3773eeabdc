import math
import random
import statistics

import pytest

from afftool import stats


def normal(n: int, seed: int, level: float = 10.0, spread: float = 0.1) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(level, spread) for _ in range(n)]


def test_the_half_width_of_a_lopsided_interval_is_that_of_its_wider_side() -> None:
    assert stats.Interval(10.0, 9.0, 13.0).half_width == 0.3
    assert stats.Interval(10.0, 6.0, 11.0).half_width == 0.4
    assert stats.Interval(-10.0, -13.0, -9.0).half_width == 0.3
    assert stats.Interval(0.0, -1.0, 1.0).half_width == math.inf


def test_five_samples_have_no_interval_and_six_have_their_range() -> None:
    assert stats.median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    interval = stats.median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    assert interval == stats.Interval(3.5, 1.0, 6.0)


@pytest.mark.parametrize(("n", "rank"), [(10, 2), (20, 6), (50, 18), (100, 40)])
def test_median_interval_takes_the_ranks_of_the_tables(n: int, rank: int) -> None:
    interval = stats.median_interval([float(i) for i in range(1, n + 1)])
    assert interval is not None
    assert (interval.low, interval.high) == (rank, n + 1 - rank)


def test_long_series_use_the_same_ranks_as_the_exact_binomial() -> None:
    n = 1001
    cumulated, exact = 0, 0
    while cumulated + math.comb(n, exact) <= 2**n * 0.025:
        cumulated += math.comb(n, exact)
        exact += 1
    interval = stats.median_interval([float(i) for i in range(1, n + 1)])
    assert interval is not None
    assert exact - 1 <= interval.low <= exact


def test_median_interval_covers_the_true_median_at_least_as_often_as_it_says() -> None:
    covered = sum(
        interval.contains(10.0) for seed in range(1000) if (interval := stats.median_interval(normal(25, seed)))
    )
    assert covered >= 935


@pytest.mark.parametrize("n", [100, 300])
def test_series_interval_covers_the_true_median_of_samples_that_resemble_their_neighbours(n: int) -> None:
    covered = {stats.median_interval: 0, stats.series_interval: 0}
    for seed in range(300):
        generator, level, series = random.Random(seed), 0.0, []
        for _ in range(n):
            level = 0.8 * level + generator.gauss(0, 0.6)
            series.append(10 + level)
        for interval_of in covered:
            interval = interval_of(series)
            assert interval is not None
            covered[interval_of] += interval.contains(10.0)
    assert covered[stats.median_interval] < 0.7 * 300
    assert covered[stats.series_interval] > 0.88 * 300


def test_series_interval_of_independent_samples_is_hardly_wider() -> None:
    widths = []
    for seed in range(100):
        series = normal(200, seed)
        plain, wide = stats.median_interval(series), stats.series_interval(series)
        assert plain is not None
        assert wide is not None
        assert wide.low <= plain.low
        assert wide.high >= plain.high
        widths.append((wide.high - wide.low) / (plain.high - plain.low))
    assert statistics.fmean(widths) < 1.3


@pytest.mark.parametrize("n", [6, 12, 20])
def test_few_samples_that_wander_have_an_interval_beyond_them(n: int) -> None:
    wandering = [10 + 0.1 * i for i in range(n)]
    interval = stats.series_interval(wandering)
    assert interval is not None
    assert 0 < interval.low < min(wandering) - 0.1
    assert interval.high > max(wandering) + 0.1


def test_samples_that_are_all_alike_have_an_interval_without_width() -> None:
    for n in (6, 40, 300):
        assert stats.series_interval([2.0] * n) == stats.Interval(2.0, 2.0, 2.0)
    assert stats.series_interval([0.0] * 30) == stats.Interval(0.0, 0.0, 0.0)


def test_percentiles_that_too_few_samples_cannot_tell_are_none() -> None:
    assert stats.percentile([1.0] * 99, 99) is None
    assert stats.percentile([float(i) for i in range(101)], 99) == pytest.approx(99.0)
    assert stats.iqr([1.0, 2.0, 3.0]) is None
    assert stats.iqr([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2.0)


def test_ratio_needs_twelve_rounds_and_equal_lengths() -> None:
    assert stats.paired_ratio([1.0] * 11, [1.0] * 11) is None
    assert stats.paired_ratio([2.0] * 12, [1.0] * 12) == stats.Interval(2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="same rounds"):
        stats.paired_ratio([1.0] * 12, [1.0] * 13)


def test_ratio_is_not_moved_by_a_drift_that_both_share() -> None:
    noise = normal(80, 1, 1.0, 0.01)
    drifting = [(1 + i / 40) * value for i, value in enumerate(noise)]
    slower = [1.1 * (1 + i / 40) * value for i, value in enumerate(normal(80, 2, 1.0, 0.01))]
    ratio = stats.paired_ratio(slower, drifting)
    assert ratio is not None
    assert ratio.estimate == pytest.approx(1.1, rel=0.01)
    assert ratio.half_width < 0.01
    assert statistics.stdev(drifting) / statistics.mean(drifting) > 0.2


def test_ratio_is_not_moved_by_the_place_in_the_round() -> None:
    # whoever comes second in a round is 10% slower, and the order turns with every round
    first = [1.0 if i % 2 == 0 else 1.1 for i in range(40)]
    second = [1.1 if i % 2 == 0 else 1.0 for i in range(40)]
    ratio = stats.paired_ratio(first, second)
    assert ratio is not None
    assert ratio.estimate == pytest.approx(1.0)
    assert ratio.contains(1.0)


def test_the_interval_of_processes_is_students_on_logarithms_and_wider_for_a_smaller_tail() -> None:
    logs = [0.01, 0.03, -0.02, 0.04]
    interval = stats.of_processes([math.exp(x) for x in logs])
    assert interval is not None
    reach = 3.18245 * statistics.stdev(logs) / 2  # Student's t with 3 degrees of freedom, 97.5%
    assert math.log(interval.estimate) == pytest.approx(0.015)
    assert math.log(interval.high) == pytest.approx(0.015 + reach, rel=1e-4)
    assert math.log(interval.low) == pytest.approx(0.015 - reach, rel=1e-4)
    wider = stats.of_processes([math.exp(x) for x in logs], tail=0.001)
    assert wider is not None
    assert wider.low < interval.low < interval.high < wider.high


def test_one_process_has_no_interval_and_a_time_that_is_not_positive_has_no_logarithm() -> None:
    assert stats.of_processes([1.0]) is None
    assert stats.of_processes([0.0, 1.0]) is None
    assert stats.processes_for([0.0, 1.0], 0.1) is stats.processes_for([1.0], 0.1) is None


def test_as_many_processes_as_are_called_enough_put_the_time_within_the_precision() -> None:
    assert stats.processes_for([1.0, 1.02, 1.04], 0.02) == 7  # Student's t with 6 degrees of freedom: 2.447
    assert math.expm1(2.447 * 0.01961 / math.sqrt(7)) < 0.02 < math.expm1(2.571 * 0.01961 / math.sqrt(6))
    assert stats.processes_for([1.0, 100.0], 1e-6) is None


def test_pairs_of_processes_are_the_draws_of_a_ratio() -> None:
    pairs = [([1.0 * r] * 4, [1.0] * 4) for r in (1.1, 1.2, 1.3)]
    assert stats.ratio_of_pairs(pairs) == stats.of_processes([1.1, 1.2, 1.3])
    assert stats.ratio_of_pairs(pairs[:1]) is None
    assert stats.ratio_of_pairs([*pairs, ([1.0], [1.0])]) is None
