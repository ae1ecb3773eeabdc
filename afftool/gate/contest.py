"""Times of cases on two sides, taken in turns by pairs of fresh processes, until the answers are known.

What a process does once and for all (its heap, its place in memory) makes it a few percent slower or faster for all its
life, however long it is timed. So a pair of processes, one a side, is one observation: many short pairs are started,
and their ratios are the sample, never the rounds within them. A pair is started once and plays all cases that are still
open, so that starting is paid once. Within it both sides sleep unless asked; a round times a block of steps on each, in
an order that turns with every round, so that drift and neighbours hit both alike.

The answer is looked at after 4, 8, 16 ... pairs and where the budget ends. Every look is one more chance to err, and so
is every case: the looks and the cases of a check share 5%, and the interval that is shown and decides holds the truth
in 95% of checks, for all looks and all cases together.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from afftool.errors import AfftoolError, Unavailable
from afftool.gate.config import GateCase
from afftool.gate.reading import METRICS, Metric, of_kind
from afftool.gate.rules import Rule, RuleBook, change_of, slowdown_limit
from afftool.gate.side import CaseError, case_fields
from afftool.gate.times import TimedSide, block_steps
from afftool.stats import Interval, median, of_processes, pair_ratios

FIRST_PAIRS = 4
"""Pairs before the first look; every further look comes after twice as many, so that looks are few in any budget."""
ROUNDS = 16
FEWEST_ROUNDS = 4
"""Of a pair; fewer than 16 where steps are so long that the first look would not fit the budget."""
WARM_S = 0.5
"""Of warming up a case, at most; what is left of it hits both sides alike."""
TAIL = 0.025
"""What may lie beyond either end of the interval, for all looks and cases of a check together."""
MOST_PAIRS = 1000
"""An answer that needs more is not worth waiting for."""
_CHANCE = statistics.NormalDist().inv_cdf(0.8)
"""So many standard errors above the least that tells, a number of pairs tells in 80% of cases."""


@dataclass(frozen=True)
class Entrant:
    """A case of a contest, as the sides take it (`afftool.gate.side.case_fields`), and what is asked about it.

    That is whether the ratio lies beyond `limit`, or below the limit's mirror image. It is given for a time before, in
    ms: a rule may be a share of that time or an amount.
    """

    name: str
    fields: Mapping[str, Any]
    limit: Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a contest says of one case: times in ms and their ratio, one number a pair of processes, and the intervals.

    `ratio` (after over before) and `after` (its own time) hold the truth in 95% of checks, for all looks and cases
    together. `pairs_needed` is about how many pairs would tell, if what was seen is the truth, and `budget_s` the
    seconds they take; None where the answer is known, and where more than `MOST_PAIRS` would be needed.
    """

    before_ms: tuple[float, ...]
    after_ms: tuple[float, ...]
    ratios: tuple[float, ...]
    ratio: Interval | None
    after: Interval | None
    rounds: int
    seconds: float
    pairs_needed: int | None = None

    @property
    def pairs(self) -> int:
        """How many pairs of processes were timed."""
        return len(self.ratios)

    @property
    def budget_s(self) -> float | None:
        """The budget that gives the pairs that are needed."""
        return None if self.pairs_needed is None else self.pairs_needed * self.seconds / self.pairs


Told = Callable[[float, str, int], None]
"""Hears how many cases are done (a share of those that are not), which one is next, and in which of its pairs."""


def entrant(rules: RuleBook, case: GateCase, metrics: Iterable[str]) -> Entrant:
    """A case with what a contest over it has to find out: the tightest of its rules on time."""
    judged = [
        (METRICS[name], rule) for name in of_kind("time", metrics) if (rule := rules.find(case.name, name)).compares
    ]
    batch = case.spec.batch

    def limit_of(metric: Metric, rule: Rule, before_ms: float) -> float:
        if metric.higher_is_better:
            return slowdown_limit(metric, rule, 1000 * batch / before_ms)
        # what is below the floor passes whatever is found: no pairs are spent on it
        return max(slowdown_limit(metric, rule, before_ms), 1 + rule.floor / before_ms)

    def limit(before_ms: float) -> float:
        return min((limit_of(metric, rule, before_ms) for metric, rule in judged), default=math.inf)

    return Entrant(case.name, case_fields(case), limit)


@dataclass
class _Standing:
    """How the contest over one case stands; lists hold a number a pair."""

    entrant: Entrant
    before_ms: list[float] = field(default_factory=list)
    after_ms: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    rounds: int = 0
    seconds: float = 0.0
    looks: int = 0
    tail: float = TAIL
    open: bool = True
    error: AfftoolError | None = None

    def share_done(self, budget_s: float) -> float:
        """How much of it is done, as far as can be said while it is open."""
        pairs = len(self.ratios)
        return min(self.seconds / budget_s, pairs / max(FIRST_PAIRS, pairs + 1)) if self.open else 1.0

    @property
    def limit(self) -> float:
        """The ratio that is asked about."""
        return self.entrant.limit(median(self.before_ms))

    def look(self, budget_s: float, cases: int) -> None:
        """Look at the answer, if it is time to."""
        pairs = len(self.ratios)
        if pairs < FIRST_PAIRS:
            return
        last = self.seconds * (pairs + 1) / pairs > budget_s
        if not last and pairs < FIRST_PAIRS * 2**self.looks:
            return
        # When to look was known beforehand, or is the clock's doing: neither depends on what the ratios say.
        self.looks += 1
        self.tail = TAIL / cases * _spent(self.looks, last=last)
        self.open = not last and change_of(of_processes(self.ratios, tail=self.tail), self.limit) == "open"

    def result(self, cases: int) -> Result:
        """What came of it."""
        ratio = of_processes(self.ratios, tail=self.tail)
        undecided = change_of(ratio, self.limit) == "open"
        return Result(
            before_ms=tuple(self.before_ms),
            after_ms=tuple(self.after_ms),
            ratios=tuple(self.ratios),
            ratio=ratio,
            after=of_processes(self.after_ms, tail=self.tail),
            rounds=self.rounds,
            seconds=self.seconds,
            pairs_needed=pairs_needed(self.ratios, self.limit, cases) if undecided else None,
        )


def _spent(look: int, *, last: bool) -> float:
    """The share of the error that a look spends: 1/2, 1/6, 1/12 ... of the whole, and all that is left at the last."""
    return 1 / look if last else 1 / (look * (look + 1))


def pairs_needed(ratios: Sequence[float], limit: float, cases: int) -> int | None:
    """About how many pairs tell a ratio from a limit with a chance of 80%, if it lies and spreads as these do.

    None where it is more than `MOST_PAIRS`, or nothing can be said: no limit, or ratios without a spread.
    """
    from scipy.special import stdtrit

    logs = list(map(math.log, ratios))
    if not 0 < limit < math.inf or len(logs) < 2:
        return None
    distance, spread = abs(statistics.fmean(logs) - math.log(limit)), statistics.stdev(logs)
    pairs = len(logs) + 1
    while pairs <= MOST_PAIRS:
        looks = 1 + math.ceil(math.log2(max(1.0, pairs / FIRST_PAIRS)))
        reach = float(stdtrit(pairs - 1, 1 - TAIL / cases * _spent(looks, last=True))) + _CHANCE
        if reach * spread <= distance * math.sqrt(pairs):
            return pairs
        pairs += max(1, pairs // 20)
    return None


def _unheard(done: float, name: str, pair: int) -> None:
    """Nobody follows."""


def compete(
    before: TimedSide,
    after: TimedSide,
    entrants: Sequence[Entrant],
    *,
    budget_s: float,
    cores: Sequence[int] = (),
    seed: int = 0,
    told: Told = _unheard,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Result | AfftoolError]:
    """What each case costs on both sides, by the name of the case; the error of a case that could not be timed.

    A case is built and timed for about `budget_s` seconds at most, in all its pairs together, the starting of processes
    not counted; its first answer is waited for. Both processes of a pair share one of `cores`, where given: a busy
    neighbour on it then disturbs both alike. `seed` shuffles the cases of each pair. `clock` gives seconds. Raises what
    the sides raise that is no case's fault.
    """
    standings = [_Standing(each) for each in entrants]
    shuffled = random.Random(seed)
    pair = 0
    while playing := [standing for standing in standings if standing.open]:
        # Who starts first turns with every pair, the core with every other, so that neither hides behind the other. The
        # order of the cases is drawn anew: what one leaves behind in a process is then luck to the next, and no bias.
        first, second = (after, before) if pair % 2 else (before, after)
        core = cores[pair // 2 % len(cores)] if cores else None
        _start(first, second)
        shuffled.shuffle(playing)
        for standing in playing:
            done = sum(each.share_done(budget_s) for each in standings)
            told(done, standing.entrant.name, len(standing.ratios) + 1)
            started = clock()
            try:
                _play(standing, before, after, first is after, budget_s, core)
            except (CaseError, Unavailable) as error:
                standing.error, standing.open = error, False
                if standing is not playing[-1]:  # whatever it did to its processes, the cases after it get others
                    _start(first, second)
                continue
            standing.seconds += clock() - started
            standing.look(budget_s, len(entrants))
        pair += 1
    return {each.entrant.name: each.error or each.result(len(entrants)) for each in standings}


def _start(first: TimedSide, second: TimedSide) -> None:
    """A fresh process for each, starting at the same time."""
    for side in (first, second):
        side.start()
    for side in (first, second):
        side.wait()


def _play(
    standing: _Standing, before: TimedSide, after: TimedSide, turned: bool, budget_s: float, core: int | None
) -> None:
    """The rounds of one case in one pair of processes. Raises what the sides raise."""
    case = standing.entrant.fields
    order = (after, before) if turned else (before, after)
    for side in order:  # both build and warm up at once
        side.send("warm", case=case, budget_s=min(WARM_S, budget_s / FIRST_PAIRS / 4), core=core)
    # as many steps on both sides, so that what a block costs at its ends weighs alike
    slowest: float = max(side.answer()["step_ms"] for side in order)
    steps = block_steps(slowest)
    times: dict[bool, list[float]] = {False: [], True: []}
    rounds = _rounds(budget_s, 2 * steps * slowest / 1000)
    for number in range(rounds):
        for side in order if number % 2 == 0 else order[::-1]:  # ABBA: a steady drift cancels in two rounds
            times[side is after].append(side.ask("time", case=case, steps=steps)["step_ms"])
    standing.before_ms.append(median(times[False]))
    standing.after_ms.append(median(times[True]))
    standing.ratios.append(median(pair_ratios(times[True], times[False])))
    standing.rounds += rounds


def _rounds(budget_s: float, round_s: float) -> int:
    """As many rounds as let the first pairs fit the budget, an even number between the fewest and the most."""
    fitting = budget_s / FIRST_PAIRS / round_s
    return max(FEWEST_ROUNDS, 2 * int(min(ROUNDS, fitting) / 2))
