"""Times of one case on two sides, taken in turns, until the answer is known or the budget is spent.

Both sides are processes that sleep unless asked. A round times a block of steps on each, in an order that turns with
every round, so that drift and neighbours hit both alike. A slowdown (or a speed-up) is only believed after a second
pair of fresh processes, started in the opposite order, has shown it too: where memory happens to lie can make one
process a few percent slower for all its life. The interval that decides covers those of all the pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from afftool.stats import Interval, median, paired_ratio

ROUNDS_FIRST = 24
ROUNDS_GROW = 1.5
"""The answer is looked at after 24 rounds, then after half as many again: few looks, so that none is a lucky one."""
BLOCK_MS = 20.0
WARM_S = 2.0


class Timed(Protocol):
    """A process that can be asked for times (`afftool.gating.side.Side`)."""

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

    def is_open(self, rounds: Pairing) -> bool:
        """Whether the interval still straddles the limit."""
        ratio = rounds.ratio()
        return ratio is None or not (ratio.high <= (limit := self.limit(median(rounds.before_ms))) or ratio.low > limit)

    def accuses(self, rounds: Pairing) -> bool:
        """Whether the answer blames or praises someone."""
        ratio, limit = rounds.ratio(), self.limit(median(rounds.before_ms))
        return ratio is not None and (ratio.low > limit or ratio.high < 2 - limit)


@dataclass(frozen=True)
class Result:
    """Paired times, a number a round on each side, and what they say. `pairs` of processes were used."""

    before_ms: tuple[float, ...]
    after_ms: tuple[float, ...]
    ratio: Interval | None
    pairs: int
    seconds: float


def compete(
    before: Timed,
    after: Timed,
    case: Mapping[str, Any],
    question: Question,
    *,
    budget_s: float,
    confirm: bool = True,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """Time `case` on both sides, in turns, for about `budget_s` seconds at most; a first answer is waited for.

    Without `confirm` one pair of processes has to do. `clock` gives seconds. Raises what the sides raise.
    """
    started = clock()

    def in_time() -> bool:
        return clock() - started < budget_s

    pairings = [_play(before, after, case, question, in_time, budget_s)]
    if confirm and question.accuses(pairings[0]):
        before.stop()
        after.stop()
        pairings.append(_play(after, before, case, question, in_time, budget_s, turned=True))
    return Result(
        before_ms=tuple(t for p in pairings for t in p.before_ms),
        after_ms=tuple(t for p in pairings for t in p.after_ms),
        ratio=covering([p.ratio() for p in pairings]),
        pairs=len(pairings),
        seconds=clock() - started,
    )


def _play(
    one: Timed,
    other: Timed,
    case: Mapping[str, Any],
    question: Question,
    in_time: Callable[[], bool],
    budget_s: float,
    *,
    turned: bool = False,
) -> Pairing:
    """Rounds of one pair of processes until they have an answer or the time is over.

    `one` starts first; it is the side before the change unless `turned`.
    """
    steps = _ready(one, other, case, budget_s=min(WARM_S, budget_s / 4))
    times: dict[int, list[float]] = {id(one): [], id(other): []}
    pairing = Pairing(times[id(other if turned else one)], times[id(one if turned else other)])
    done = 0
    for look in _looks():
        while done < look and (done < ROUNDS_FIRST or in_time()):
            for side in (one, other) if done % 2 == 0 else (other, one):
                times[id(side)].append(side.ask("time", case=case, steps=steps)["step_ms"])
            done += 1
        if not in_time() or not question.is_open(pairing):
            break
    return pairing


def _looks() -> Iterator[int]:
    """After how many rounds the answer is looked at."""
    look = float(ROUNDS_FIRST)
    while True:
        yield round(look)
        look *= ROUNDS_GROW


def _ready(one: Timed, other: Timed, case: Mapping[str, Any], *, budget_s: float) -> int:
    """Build and warm up both sides at once, and choose how many steps make a block."""
    for side in (one, other):
        side.send("warm", case=case, budget_s=budget_s)
    slowest: float = max(side.answer()["step_ms"] for side in (one, other))
    return max(1, round(BLOCK_MS / slowest))


def covering(intervals: list[Interval | None]) -> Interval | None:
    """The narrowest interval that covers all of them, around the median of their estimates; None if one is unknown."""
    known = [interval for interval in intervals if interval is not None]
    if len(known) < len(intervals):
        return None
    return Interval(median([i.estimate for i in known]), min(i.low for i in known), max(i.high for i in known))
