"""Times taken apart from what they are compared with: in another job, perhaps on another day.

Nothing can be interleaved then, so each number is the median of a process of its own, and processes are what is
compared: their spread is the spread that two jobs see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from afftool.gating.contest import BLOCK_MS, WARM_S, Timed
from afftool.stats import Interval, median

PROCESSES = 5
"""Five against five is the least that can tell two machines' jobs apart at 99%: one order in 252."""
_BLOCKS = 24


def times_apart(
    side: Timed, cases: Sequence[dict[str, Any]], *, budget_s: float, told: Callable[[int, int], None]
) -> Iterator[tuple[int, float]]:
    """(position of the case, its median in ms), once a case for each of `PROCESSES` fresh processes.

    `budget_s` is for one case, all processes together. `told` hears (process, case) before each. Raises what the
    side raises.
    """
    for process in range(PROCESSES):
        side.stop()
        for position, case in enumerate(cases):
            told(process, position)
            step_ms = side.ask("warm", case=case, budget_s=min(WARM_S, budget_s / PROCESSES / 2))["step_ms"]
            steps = max(1, round(BLOCK_MS / step_ms))
            blocks = max(5, min(_BLOCKS, int(1000 * budget_s / PROCESSES / 2 / (steps * step_ms))))
            times = [side.ask("time", case=case, steps=steps)["step_ms"] for _ in range(blocks)]
            yield position, median(times)


def ratio_apart(before: Sequence[float], after: Sequence[float]) -> Interval | None:
    """How many times `before` `after` is: the Hodges-Lehmann estimate with the 99% interval of the rank-sum test.

    Distribution-free and exact for independent values (Hollander, Wolfe and Chicken, Nonparametric Statistical
    Methods, 4.3). None where there are too few values for any 99% interval.
    """
    rank = _rank(len(before), len(after))
    if rank == 0:
        return None
    ratios = sorted(new / old for old in before for new in after)
    return Interval(median(ratios), ratios[rank - 1], ratios[-rank])


@cache
def _rank(n: int, m: int) -> int:
    """The largest k for which the rank sum statistic U is below k with at most 0.5% chance; 0 if there is none."""
    if not n or not m:
        return 0
    counts = _orders(n, m)
    limit, cumulated, rank = 0.005 * math.comb(n + m, n), 0, 0
    while cumulated + counts[rank] <= limit:
        cumulated += counts[rank]
        rank += 1
    return rank


@cache
def _orders(n: int, m: int) -> tuple[int, ...]:
    """How many orders of n and m values give each U = 0 ... nm."""
    if n == 0 or m == 0:
        return (1,)
    counts = [0] * (n * m + 1)
    for u, ways in enumerate(_orders(n, m - 1)):
        counts[u] += ways
    for u, ways in enumerate(_orders(n - 1, m)):
        counts[u + m] += ways
    return tuple(counts)
