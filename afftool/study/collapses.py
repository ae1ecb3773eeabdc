"""Runs that collapsed: trained to the end, and far below the other runs of the same variant.

Now and then a training goes wrong without its loss becoming unusable. Such a run says little about a typical one and
much about how often runs go wrong, so the two are told apart: it is named, set apart from the test of what is typical,
and held against its variant. Pure functions of numbers.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

BELOW = 5.0
"""A run collapsed where it lies so many deviations below the median of its variant's other runs."""
FEWEST_RUNS = 5
"""Of fewer runs nobody can say which is the odd one."""
_DEVIATION = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


def collapsed(scores: Mapping[str, Mapping[int, float]]) -> dict[str, frozenset[int]]:
    """The seeds at which a variant's run collapsed, by variant.

    A run's distance is from the median of the variant's other runs. The deviation is the median distance, of all
    variants together or of this one alone, whichever is wider (times 1.48): so a variant that merely varies more than
    the others has no collapses. `BELOW` and the referee say how often a run is called that for nothing.
    """
    distances = {
        name: {seed: value - statistics.median(x for s, x in runs.items() if s != seed) for seed, value in runs.items()}
        for name, runs in scores.items()
        if len(runs) >= FEWEST_RUNS
    }
    if not distances:
        return {name: frozenset() for name in scores}
    together = statistics.median(abs(d) for of in distances.values() for d in of.values())
    found = {}
    for name in scores:
        mine = distances.get(name, {})
        wide = max(together, statistics.median(map(abs, mine.values())) if mine else 0.0)
        found[name] = frozenset(seed for seed, d in mine.items() if wide > 0 and d < -BELOW * _DEVIATION * wide)
    return found


def unseen(runs: int) -> float:
    """How large a share of all runs may collapse though none of so many did, at 95%."""
    return float(1 - 0.05 ** (1 / runs))
