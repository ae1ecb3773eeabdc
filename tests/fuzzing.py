"""Properties held against many made-up inputs: some in every run, many more under the marker `fuzz`; seeded.

@AT_LENGTH
def test_reading_a_store_gives_runs_or_a_sentence(examples: int) -> None:
    fuzz(examples, st.binary(), check)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

Made = TypeVar("Made")

AT_LENGTH = pytest.mark.parametrize("examples", [150, pytest.param(2_000, marks=pytest.mark.fuzz)])


def fuzz(examples: int, made: SearchStrategy[Made], check: Callable[[Made], None]) -> None:
    """Hold `check` against so many values, the same in every run and on every machine; the smallest bad one is told."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,  # a busy machine is no fault of ours
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(made)
    def holds(value: Made) -> None:
        check(value)

    holds()
