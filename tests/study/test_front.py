"""What dominates what, and how surely a variant is on the front."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from afftool.study.front import Place, Point, places
from afftool.study.significance import compare

SEEDS = range(8)


def point(
    level: float,
    *,
    params: float = 100.0,
    speed: float = 1000.0,
    luck: int = 0,
    failed: tuple[int, ...] = (),
    **costs: float,
) -> Point:
    """Scores around a level; another `luck` scatters them otherwise."""
    noise = np.random.default_rng(luck).normal(0, 0.004, len(SEEDS))
    return Point(
        scores={seed: level + float(noise[seed]) for seed in SEEDS if seed not in failed},
        costs={"params": params, **costs},
        speeds=dict.fromkeys((seed for seed in SEEDS if seed not in failed), speed),
        failed=frozenset(failed),
    )


def placed(points: Mapping[str, Point], seed: int = 0) -> dict[str, Place]:
    """The places by what the scores of all pairs claim together."""
    pairs = list(itertools.combinations(points, 2))
    failed = {name: point.failed for name, point in points.items()}
    comparisons = compare({name: point.scores for name, point in points.items()}, pairs, failed=failed)
    return places(points, comparisons, seed=seed)


def dominated(points: Mapping[str, Point]) -> dict[str, str | None]:
    return {name: place.dominated_by for name, place in placed(points).items()}


def test_clearly_better_at_no_more_of_any_cost_dominates_and_the_best_is_named() -> None:
    points = {"low": point(0.5), "high": point(0.7, luck=1), "higher": point(0.8, luck=2, params=90.0)}
    assert dominated(points) == {"low": "higher", "high": "higher", "higher": None}
    assert [place.on_front for place in placed(points).values()] == [0, 0, 1]


@pytest.mark.parametrize(
    "dearer", [point(0.7, luck=1, params=101.0), point(0.7, luck=1, speed=990.0), point(0.7, luck=1, macs=11.0)]
)
def test_what_costs_more_of_anything_dominates_nobody(dearer: Point) -> None:
    points = {"low": point(0.5, macs=10.0), "high": dearer}
    assert dominated(points) == {"low": None, "high": None}
    assert {place.on_front for place in placed(points).values()} == {1}


def test_a_cost_that_is_known_of_one_alone_is_not_compared() -> None:
    assert dominated({"low": point(0.5, latency_ms=1.0), "high": point(0.7, luck=1)})["low"] == "high"


def test_a_higher_mean_alone_dominates_nobody() -> None:
    points = {f"equal {luck}": point(0.5, luck=luck) for luck in range(7)}
    found = placed(points)
    assert all(place.dominated_by is None for place in found.values())
    shares = [place.on_front or 0 for place in found.values()]
    assert sum(shares) == pytest.approx(1)  # at equal cost the best of a resample is there alone
    assert max(shares) < 1


def test_a_variant_that_lost_runs_dominates_nobody_and_its_failures_count_as_nothing_scored() -> None:
    points = {"low": point(0.5), "lossy": point(0.7, luck=1, failed=(2, 5))}
    assert dominated(points)["low"] is None
    shares = placed(points)
    assert 0 < (shares["low"].on_front or 0) < 1


def test_the_cheaper_of_equal_scores_is_on_the_front_alone() -> None:
    same = point(0.5)
    cheap = Point(scores=same.scores, costs={"params": 50.0}, speeds=same.speeds)
    assert {name: place.on_front for name, place in placed({"dear": same, "cheap": cheap}).items()} == {
        "dear": 0,
        "cheap": 1,
    }


def test_few_seeds_in_common_draw_no_front() -> None:
    some = point(0.5)
    part = Point(scores=dict.fromkeys((0, 1, 2, 9, 10, 11), 0.4), costs={}, speeds={})
    assert {place.on_front for place in placed({"some": some, "part": part}).values()} == {None}
    assert placed({}) == {}
    assert placed({"alone": some}) == {"alone": Place(on_front=1.0)}


def test_the_same_numbers_give_the_same_front() -> None:
    points = {f"equal {luck}": point(0.5, luck=luck) for luck in range(3)}
    assert placed(points) == placed(points)
    assert placed(points) != placed(points, seed=1)
