from __future__ import annotations

import random

from afftool.profile.timeline import intersect, length, merge, subtract


def test_merging_joins_what_touches_and_drops_what_is_empty() -> None:
    assert merge([(5, 6), (1, 2), (2, 3), (4, 4)]) == [(1, 3), (5, 6)]


def test_intersection_and_difference_agree_with_counting_positions() -> None:
    draw = random.Random(1)
    for _ in range(200):
        a, b = (merge((s, s + draw.randint(0, 6)) for s in (draw.randint(0, 30) for _ in range(5))) for _ in "ab")
        cells_a, cells_b = ({i for s, e in part for i in range(int(s), int(e))} for part in (a, b))
        for found, expected in ((intersect(a, b), cells_a & cells_b), (subtract(a, b), cells_a - cells_b)):
            assert {i for s, e in found for i in range(int(s), int(e))} == expected
            assert length(found) == len(expected)
