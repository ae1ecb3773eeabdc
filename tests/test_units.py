from __future__ import annotations

import pytest

from afftool import units


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (999.6, "1.00 k"), (4576, "4.58 k"), (4_080_000_000, "4.08 G"), (999_960, "1.00 M")],
)
def test_large_numbers_get_a_prefix_and_three_digits(number: float, text: str) -> None:
    assert units.scaled(number) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.0000123, "12.3 ns"), (0.00123, "1.23 µs"), (0.9996, "1.00 ms"), (9.996, "10.0 ms"), (65_000, "65.0 s")],
)
def test_times_get_the_unit_that_fits(milliseconds: float, text: str) -> None:
    assert units.milliseconds(milliseconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.50 s"), (59.4, "59 s"), (125, "2 min 05 s"), (3700, "1 h 01 min")]
)
def test_seconds_become_minutes_and_hours(seconds: float, text: str) -> None:
    assert units.seconds(seconds) == text


def test_counts_are_never_rounded() -> None:
    assert units.count(30_373_192) == "30,373,192"


def test_ratios_and_tiny_numbers_stay_readable() -> None:
    assert units.ratio(1 / 3) == "0.333x"
    assert units.ratio(1234.5) == "1,234x"
    assert units.significant(1.7e-9, 2) == "1.7e-09"
    assert units.significant(float("inf")) == "inf"


def test_a_share_is_shown_in_percent() -> None:
    assert units.percent(0.1234) == "12.3%"
    assert units.percent(0.71249, 2) == "71.25%"
    assert units.percent(1, 0) == "100%"
