"""What a side is asked to be timed, and times that are taken apart: in another job, and perhaps on another day.

There nothing can be interleaved, so each number is the median of a process of its own. Processes of two jobs say by how
much the two differ, and nothing of how much any two jobs differ: machines of one kind, their neighbours and their
clocks do, by percents. Only further jobs of the same code tell that, and make a difference between two a claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Protocol

from afftool.stats import Interval, median, of_processes

BLOCK_MS = 20.0
"""A block is long beside the clock and the switch of processes, short beside what drifts."""
WARM_S = 2.0
PROCESSES = 5
"""Five against five is the least that can tell two jobs' processes apart at 99%: one order in 252."""
FEWEST_JOBS = 3
"""Jobs of the same code that tell how far jobs lie apart; two have one difference, which says nothing of the next."""
_BLOCKS = 24


def block_steps(step_ms: float) -> int:
    """How many steps make a block."""
    return max(1, round(BLOCK_MS / step_ms))


class TimedSide(Protocol):
    """A process that can be asked for times (`afftool.gate.side.Side`)."""

    def send(self, question: str, **fields: Any) -> None:
        """Send a question without waiting."""

    def answer(self) -> dict[str, Any]:
        """The answer to it."""

    def ask(self, question: str, **fields: Any) -> dict[str, Any]:
        """Both."""

    def start(self) -> None:
        """Start a fresh process, without waiting until it can be asked."""

    def wait(self) -> None:
        """Wait until it can be."""

    def stop(self) -> None:
        """End the process; the next question starts a fresh one."""


def times_apart(
    side: TimedSide, cases: Sequence[dict[str, Any]], *, budget_s: float, told: Callable[[int, int], None]
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
            steps = block_steps(step_ms)
            blocks = max(5, min(_BLOCKS, int(1000 * budget_s / PROCESSES / 2 / (steps * step_ms))))
            times = [side.ask("time", case=case, steps=steps)["step_ms"] for _ in range(blocks)]
            yield position, median(times)


def ratio_of_jobs(before: Sequence[float], after: float, *, tail: float = 0.025) -> Interval | None:
    """How many times the jobs `before`, one number each, another job's `after` is; None below three jobs.

    Student's prediction interval in logarithms: what the jobs before differ by is also the luck of the one that is
    compared with them. A share of `tail` may lie beyond either end where nothing changed.
    """
    known = of_processes(before, tail=tail) if len(before) >= FEWEST_JOBS else None
    if known is None:
        return None
    ratio = after / known.estimate
    # its own interval is t s / sqrt(n) wide to either side, and what one more job adds makes it t s sqrt(1 + 1 / n)
    reach = (known.high / known.estimate) ** math.sqrt(len(before) + 1)
    return Interval(ratio, ratio / reach, ratio * reach)


def ratio_apart(before: Sequence[float], after: Sequence[float]) -> Interval | None:
    """How many times `before` `after` is: the Hodges-Lehmann estimate with the 99% interval of the rank-sum test.

    Distribution-free and exact for independent values (Hollander, Wolfe and Chicken, Nonparametric Statistical
    Methods, 4.3). None where there are too few values for any 99% interval.
    """
    rank = _rank(len(before), len(after))
    if rank == 0:
        return None
    # A ratio is a shift of logarithms, and the interval holds every r that the rank-sum test does not refuse for
    # after / r against before. It ends at the k-th smallest and the k-th largest of the n m ratios, where fewer than k
    # pairs of values lie the wrong way round (U < k) with a chance of 0.5% at most. Five and five values have 252
    # orders, each as likely as any other if nothing changed, so there k is 1: the extremes.
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
    # Take the largest value away: one of the m adds nothing to U, one of the n lay above all m (Mann and Whitney).
    counts = [0] * (n * m + 1)
    for u, ways in enumerate(_orders(n, m - 1)):
        counts[u] += ways
    for u, ways in enumerate(_orders(n - 1, m)):
        counts[u + m] += ways
    return tuple(counts)
