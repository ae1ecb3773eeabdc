import random

import pytest

from afftool import patterns


def normal(n: int, seed: int, level: float = 10.0, spread: float = 0.1) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(level, spread) for _ in range(n)]


def test_outliers_are_flagged_in_place() -> None:
    samples = [1.0, 1.01, 0.99, 1.02, 5.0, 1.0, 0.98]
    assert patterns.outliers(samples) == [False] * 4 + [True] + [False] * 2


def test_drift_is_seen_and_noise_is_not_drift() -> None:
    rising = [1 + i / 100 + noise for i, noise in enumerate(normal(60, 3, 0.0, 0.02))]
    change = patterns.drift(rising)
    assert change is not None
    assert 0.3 < change < 0.5
    assert patterns.drift([1.0] * 11) is None
    assert patterns.drift([1.0] * 60) == 0.0


def test_a_machine_that_wanders_does_not_drift() -> None:
    found = 0
    for seed in range(60):
        generator, level, series = random.Random(seed), 0.0, []
        for _ in range(60):
            level = 0.9 * level + generator.gauss(0, 0.004)
            series.append(1 + level)
        found += patterns.drift(series) != 0.0
    assert found <= 6


def test_two_levels_are_told_from_one_wide_or_skewed_one() -> None:
    jumping = [1.0 + 0.01 * (i % 5) + 0.5 * (i // 7 % 2) for i in range(70)]
    levels = patterns.modes(jumping)
    assert levels is not None
    assert levels == pytest.approx((1.02, 1.52))
    generator = random.Random(0)
    for seed in range(50):
        assert patterns.modes(normal(100, seed)) is None
        assert patterns.modes([1 + generator.expovariate(5.0) for _ in range(100)]) is None
    assert patterns.modes([1.0] * 50) is None


def test_one_far_sample_is_an_outlier_and_no_second_level() -> None:
    assert patterns.modes([*normal(60, 1), 30.0]) is None
