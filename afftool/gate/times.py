"""Times of a case on two sides: taken in turns, until the answer is known or the budget is spent; or taken apart.

In turns, both sides are processes that sleep unless asked. A round times a block of steps on each, in an order that
turns with every round, so that drift and neighbours hit both alike. A slowdown (or a speed-up) is only believed if a
second pair of fresh processes, started in the opposite order, shows it too: where memory happens to lie can make one
process a few percent slower for all its life. If the two disagree, further pairs are asked, while the budget lasts,
until two say the same. The interval that decides covers those of the pairs that agree, or of all where none do.

Apart, in another job and perhaps on another day, nothing can be interleaved, so each number is the median of a process
of its own, and processes are what is compared: their spread is the spread that two jobs see.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from afftool.gate.rules import TimeChange, change_of
from afftool.stats import Interval, median, paired_ratio

ROUNDS_FIRST = 24
ROUNDS_GROW = 1.5
"""The answer is looked at after 24 rounds, then after half as many again: few looks, so that none is a lucky one."""
BLOCK_MS = 20.0
"""A block is long beside the clock and the switch of processes, short beside what drifts."""
WARM_S = 2.0
PROCESSES = 5
"""Five against five is the least that can tell two machines' jobs apart at 99%: one order in 252."""
_BLOCKS = 24


class TimedSide(Protocol):
    """A process that can be asked for times (`afftool.gate.side.Side`)."""

    def send(self, question: str, **fields: Any) -> None:
        """Send a question without waiting."""

    def answer(self) -> dict[str, Any]:
        """The answer to it."""

    def ask(self, question: str, **fields: Any) -> dict[str, Any]:
        """Both."""

    def stop(self) -> None:
        """End the process; the next question starts a fresh one."""


@dataclass
class Pairing:
    """The rounds of one pair of processes, in the order they were taken."""

    before_ms: list[float] = field(default_factory=list)
    after_ms: list[float] = field(default_factory=list)

    def ratio(self) -> Interval | None:
        """After over before."""
        return paired_ratio(self.after_ms, self.before_ms)


@dataclass(frozen=True)
class Question:
    """What is to be known: whether the ratio lies beyond a limit, or below the limit's mirror image.

    `limit` gives it for a time before, in ms: a rule may be a share of that time or an amount.
    """

    limit: Callable[[float], float]

    def answer(self, rounds: Pairing) -> TimeChange:
        """What these rounds say by themselves."""
        return change_of(rounds.ratio(), self.limit(median(rounds.before_ms)))


@dataclass(frozen=True)
class Result:
    """Paired times, a number a round on each side, and what they say. `pairs` of processes were used."""

    before_ms: tuple[float, ...]
    after_ms: tuple[float, ...]
    ratio: Interval | None
    pairs: int
    seconds: float


def compete(
    before: TimedSide,
    after: TimedSide,
    case: Mapping[str, Any],
    question: Question,
    *,
    budget_s: float,
    cores: Sequence[int] = (),
    confirm: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Time `case` on both sides, in turns, for about `budget_s` seconds at most; a first answer is waited for.

    Each pair of processes shares one of `cores`, where given: a busy neighbour on it then disturbs both sides alike.
    Without `confirm` one pair has to do. `clock` gives seconds. Raises what the sides raise.
    """
    started = clock()

    def in_time() -> bool:
        return clock() - started < budget_s

    # The rounds of one pair share where its processes happen to lie in memory, so their interval knows nothing of that
    # luck, however many rounds there are: only another pair draws anew. It starts in the opposite order and on another
    # core, so that being first, and that core's neighbours, are drawn anew too. Pairs that do not agree are not
    # averaged: one of them had luck, and a third tells which.
    sides = (before, after)
    pairings: list[Pairing] = []
    while True:
        turned = len(pairings) % 2 == 1
        core = cores[len(pairings) % len(cores)] if cores else None
        pairings.append(
            _play(*(sides[::-1] if turned else sides), case, question, in_time, budget_s, core, turned=turned)
        )
        agreeing = _agreeing(question, pairings)
        if not confirm or _settled(question, pairings, agreeing) or (len(pairings) > 1 and not in_time()):
            break
        before.stop()
        after.stop()
    return Result(
        before_ms=tuple(t for p in agreeing for t in p.before_ms),
        after_ms=tuple(t for p in agreeing for t in p.after_ms),
        ratio=covering([p.ratio() for p in agreeing]),
        pairs=len(pairings),
        seconds=clock() - started,
    )


def _agreeing(question: Question, pairings: Sequence[Pairing]) -> Sequence[Pairing]:
    """Two pairs that say the same, if there are; all of them until then."""
    for kind in ("slower", "faster", "same"):
        alike = [pairing for pairing in pairings if question.answer(pairing) == kind]
        if len(alike) > 1:
            return alike
    return pairings


def _settled(question: Question, pairings: Sequence[Pairing], agreeing: Sequence[Pairing]) -> bool:
    """Whether no further pair is needed: nobody is accused or praised by one alone, and no answer is disputed."""
    first = question.answer(pairings[0])
    if len(pairings) == 1:  # "same" blames nobody, and a pair that stayed open has spent the budget already
        return first in ("same", "open")
    return len(agreeing) > 1 and len({question.answer(pairing) for pairing in agreeing}) == 1


def _play(
    one: TimedSide,
    other: TimedSide,
    case: Mapping[str, Any],
    question: Question,
    in_time: Callable[[], bool],
    budget_s: float,
    core: int | None,
    *,
    turned: bool,
) -> Pairing:
    """Rounds of one pair of processes until they have an answer or the time is over.

    `one` starts first; it is the side before the change unless `turned`.
    """
    steps = _ready(one, other, case, budget_s=min(WARM_S, budget_s / 4), core=core)
    times: dict[int, list[float]] = {id(one): [], id(other): []}
    pairing = Pairing(times[id(other if turned else one)], times[id(one if turned else other)])
    done = 0
    # To stop as soon as the interval leaves the limit would be to look until noise has it leave: every look is one more
    # chance for that. Looks that lie apart by a factor are few within any budget, and a second pair has to agree.
    for look in _looks():
        while done < look and (done < ROUNDS_FIRST or in_time()):
            for side in (one, other) if done % 2 == 0 else (other, one):  # ABBA: a steady drift cancels in two rounds
                times[id(side)].append(side.ask("time", case=case, steps=steps)["step_ms"])
            done += 1
        if not in_time() or question.answer(pairing) != "open":
            break
    return pairing


def _looks() -> Iterator[int]:
    """After how many rounds the answer is looked at."""
    look = float(ROUNDS_FIRST)
    while True:
        yield round(look)
        look *= ROUNDS_GROW


def _ready(one: TimedSide, other: TimedSide, case: Mapping[str, Any], *, budget_s: float, core: int | None) -> int:
    """Build and warm up both sides at once, and choose how many steps make a block."""
    for side in (one, other):
        side.send("warm", case=case, budget_s=budget_s, core=core)
    # as many on both sides, so that what a block costs at its ends weighs alike
    slowest: float = max(side.answer()["step_ms"] for side in (one, other))
    return max(1, round(BLOCK_MS / slowest))


def covering(intervals: list[Interval | None]) -> Interval | None:
    """The narrowest interval that covers all of them, around the median of their estimates; None if one is unknown."""
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return None
    return Interval(median([i.estimate for i in known]), min(i.low for i in known), max(i.high for i in known))


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
