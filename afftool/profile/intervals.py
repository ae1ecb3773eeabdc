"""Arithmetic on sets of time intervals, for "how long was anything of this kind running"."""

from __future__ import annotations

from collections.abc import Iterable

Intervals = list[tuple[float, float]]
"""Disjoint `(start, end)` pairs in rising order, as `merge` returns them."""


def merge(intervals: Iterable[tuple[float, float]]) -> Intervals:
    """The union of any intervals, empty ones left out."""
    merged: Intervals = []
    for start, end in sorted(intervals):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def intersect(a: Intervals, b: Intervals) -> Intervals:
    """What two merged sets have in common."""
    common: Intervals = []
    i = j = 0
    while i < len(a) and j < len(b):
        start, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < end:
            common.append((start, end))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return common


def subtract(a: Intervals, b: Intervals) -> Intervals:
    """What of the merged set `a` is not in the merged set `b`."""
    if not a:
        return []
    low, high = a[0][0], a[-1][1]
    outside: Intervals = []
    position = low
    for start, end in b:
        if start > position:
            outside.append((position, start))
        position = max(position, end)
    if position < high:
        outside.append((position, high))
    return intersect(a, outside)


def length(intervals: Intervals) -> float:
    """The total length of a merged set."""
    return sum(end - start for start, end in intervals)
