"""How far two orders agree, and what chance would do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from scipy.stats import kendalltau

from afftool.study.ranking import agreement


def test_agreement_is_about_order_alone() -> None:
    same, turned = agreement([1, 2, 3, 4, 5], [10, 20, 40, 41, 50]), agreement([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    assert same is not None
    assert turned is not None
    assert (same.tau, turned.tau) == (pytest.approx(1), pytest.approx(-1))
    assert same.p == turned.p == pytest.approx(2 / math.factorial(5))


def test_fewer_than_five_variants_and_sides_without_an_order_say_nothing() -> None:
    assert agreement([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert agreement([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([1, 2, 3, 4, 5], [1, 1, 3, 4, 5]), ([3, 1, 2, 5, 4], [2, 2, 1, 3, 3]), ([1, 2, 3, 4, 5], [2, 1, 3, 5, 4])],
)
def test_p_counts_the_orders_that_agree_or_disagree_as_much(ours: Sequence[float], theirs: Sequence[float]) -> None:
    seen = abs(kendalltau(ours, theirs).statistic)
    taus = [abs(kendalltau(order, theirs).statistic) for order in itertools.permutations(ours)]
    found = agreement(ours, theirs)
    assert found is not None
    assert found.p == pytest.approx(sum(tau >= seen - 1e-9 for tau in taus) / len(taus))


def test_many_variants_with_ties_have_a_p_too() -> None:
    found = agreement(range(12), [1, 1, *range(2, 12)])
    assert found is not None
    assert 0 < found.p < 1e-4
