"""Verdicts on time, as `check` gives them, from sides whose processes are made up: each has a level of its own for each
case, drawn anew when it starts, and blocks that vary as the world says. The rule is 5%, the budget the 20 s of the
default, spent by a made-up clock at some 1.2 s a pair of processes; found, fine and open are what is said then."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from afftool.errors import AfftoolError
from afftool.gate.contest import ROUNDS, Entrant, Result, compete
from afftool.gate.rules import TimeChange, change_of
from afftool.gate.times import PROCESSES, ratio_of_jobs
from afftool.stats import median
from refereed.trial import Run, Trial
from refereed.worlds import BETWEEN, WITHIN, Rng, World

LIMIT = 1.05
BUDGET_S = 20.0
STEP_MS = 2.0
_BLOCKS = ROUNDS
"""That one process is asked for of a case, at most."""

Levels = Callable[[Rng], float]
"""The level of a process that has just started."""


def normal(between: float) -> Levels:
    """Processes that differ by so much, as a standard deviation."""
    return lambda rng: math.exp(rng.normal(0, between))


def grouped(rng: Rng) -> float:
    """One process in four is 15% slower than the others."""
    return 1.15 if rng.random() < 0.25 else 1.0


class Clock:
    """Seconds that pass only where something is timed."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class MadeUpSide:
    """A side whose processes are luck; a step of case n takes `step_ms[n]` but for that."""

    def __init__(self, rng: Rng, clock: Clock, world: World, levels: Levels, step_ms: Sequence[float]) -> None:
        self._rng, self._clock, self._world, self._levels, self._step_ms = rng, clock, world, levels, step_ms
        self._blocks: list[float] = []
        self._pending: tuple[str, dict[str, Any]] = ("", {})

    def start(self) -> None:
        """Nothing is kept of the process before."""
        self._blocks = []

    stop = start

    def wait(self) -> None:
        """It can be asked at once."""

    def send(self, question: str, **fields: Any) -> None:
        self._pending = (question, fields)

    def answer(self) -> dict[str, Any]:
        question, fields = self._pending
        if question == "warm":
            level = self._step_ms[fields["case"]["number"]] * self._levels(self._rng)
            self._blocks = (level * self._world(self._rng, _BLOCKS)[::-1]).tolist()
            self._clock.now += fields["budget_s"] / 2  # both sides warm up at once
            return {"step_ms": STEP_MS}
        step_ms = self._blocks.pop()
        self._clock.now += 1.1 * step_ms * fields["steps"] / 1000
        return {"step_ms": step_ms}

    def ask(self, question: str, **fields: Any) -> dict[str, Any]:
        self.send(question, **fields)
        return self.answer()


def contest(
    rng: Rng, world: str, levels: Levels, ratios: Sequence[float], *, budget_s: float = BUDGET_S
) -> list[Result]:
    """A check of cases with these true ratios, by the project's own contest."""
    clock = Clock()
    before, after = (
        MadeUpSide(rng, clock, WITHIN[world], levels, [STEP_MS * ratio for ratio in each])
        for each in ([1.0] * len(ratios), ratios)
    )
    entrants = [Entrant(str(number), {"number": number}, lambda _: LIMIT) for number in range(len(ratios))]
    seed = int(rng.integers(2**32))
    found = compete(before, after, entrants, budget_s=budget_s, seed=seed, clock=clock)
    return [_timed(found[each.name]) for each in entrants]


def _timed(found: Result | AfftoolError) -> Result:
    assert isinstance(found, Result)
    return found


def told(changes: Sequence[TimeChange], ratios: Sequence[float], world: str, levels: Levels) -> Run:
    """Whether any of the cases of a check, with these true ratios, is told one of `changes`."""
    return lambda rng: any(change_of(each.ratio, LIMIT) in changes for each in contest(rng, world, levels, ratios))


def covers(ratio: float, world: str, levels: Levels) -> Run:
    """Whether the interval that a check ends with holds the true ratio."""

    def run(rng: Rng) -> bool:
        [found] = contest(rng, world, levels, [ratio])
        return found.ratio is not None and found.ratio.contains(ratio)

    return run


def foretold(ratio: float, world: str, levels: Levels) -> Run:
    """Whether the budget that an open answer asks for gives one; None where it was not open, or none is asked for."""

    def run(rng: Rng) -> bool | None:
        [found] = contest(rng, world, levels, [ratio])
        if found.budget_s is None:
            return None
        [again] = contest(rng, world, levels, [ratio], budget_s=found.budget_s)
        return change_of(again.ratio, LIMIT) != "open"

    return run


def jobs_cover(jobs: int, between: float) -> Run:
    """Whether the interval of a job against so many of a baseline holds 1 where nothing changed."""

    def run(rng: Rng) -> bool:
        numbers = [
            math.exp(rng.normal(0, between)) * median(rng.lognormal(0, 0.02, PROCESSES).tolist())
            for _ in range(jobs + 1)
        ]
        found = ratio_of_jobs(numbers[:-1], numbers[-1])
        return found is not None and found.contains(1.0)

    return run


FINE: tuple[TimeChange, ...] = ("same", "faster")
FOUND: tuple[TimeChange, ...] = ("slower",)
TWELVE = 12
_AT_2 = normal(0.02)
_LASTING = ("AR .9", "two regimes")
"""Worlds in which what disturbs outlasts most of a process, and so makes processes differ by 3 to 8%: more than the 2%
at which an answer is wanted within the budget."""
_GROUPS = "one process in four 15% slower"


def _where(world: str, between: float = 0.02) -> str:
    return f"{world}, processes {100 * between:g}%"


TRIALS: tuple[Trial, ...] = (
    *(
        Trial(
            what="the interval of equals holds 1",
            world=_where(world, between),
            run=covers(1.0, world, normal(between)),
            runs=1000,
            few=100 if between == 0.02 else 0,
            least=0.90 if world == "AR .9" else 0.93,
        )
        for between in BETWEEN
        for world in WITHIN
    ),
    *(
        Trial(
            what="equals are accused",
            world=_where(world),
            run=told(FOUND, [1.0], world, _AT_2),
            runs=1000,
            few=100,
            most=0.01,
        )
        for world in WITHIN
    ),
    Trial(
        what="equals are accused",
        world=f"independent, {_GROUPS}",
        run=told(FOUND, [1.0], "independent", grouped),
        runs=1000,
        few=0,
        most=0.01,
    ),
    *(
        Trial(
            what=what,
            world=_where(world),
            run=told(changes, [ratio], world, _AT_2),
            runs=1000,
            few=200 if world == "AR .5" else 0,
            least=None if world in _LASTING else 0.95,
        )
        for what, changes, ratio in (("equals are fine", FINE, 1.0), ("10% are found", FOUND, 1.1))
        for world in WITHIN
    ),
    *(
        Trial(
            what="10% are fine", world=_where(world), run=told(FINE, [1.1], world, _AT_2), runs=1000, few=100, most=0.02
        )
        for world in WITHIN
    ),
    Trial(
        what="10% are fine",
        world=f"independent, {_GROUPS}",
        run=told(FINE, [1.1], "independent", grouped),
        runs=1000,
        few=0,
        most=0.02,
    ),
    *(
        Trial(
            what=f"exactly the rule's 5% are {word}",
            world=_where(world),
            run=told(changes, [LIMIT], world, _AT_2),
            runs=4000,
            few=0,
            most=0.025,
        )
        for word, changes in (("found", FOUND), ("fine", FINE))
        for world in ("independent", "AR .5", "AR .9")
    ),
    Trial(
        what="of 12 cases at exactly the rule's 5% any is found",
        world=_where("AR .5"),
        run=told(FOUND, [LIMIT] * TWELVE, "AR .5", _AT_2),
        runs=1000,
        few=0,
        most=0.03,
    ),
    Trial(
        what="of 12 equals any is accused",
        world=_where("AR .5"),
        run=told(FOUND, [1.0] * TWELVE, "AR .5", _AT_2),
        runs=500,
        few=30,
        most=0.01,
    ),
    *(
        Trial(
            what="of 12 equals any stays open",
            world=_where("AR .5", between),
            run=told(("open",), [1.0] * TWELVE, "AR .5", normal(between)),
            runs=300,
            few=0,
        )
        for between in (0.003, 0.01, 0.02)
    ),
    *(
        Trial(
            what="equals stay open",
            world=_where("AR .5", between),
            run=told(("open",), [1.0], "AR .5", normal(between)),
            runs=1000,
            few=0,
        )
        for between in BETWEEN
    ),
    Trial(
        what="the budget that an open answer asks for gives one",
        world=_where("AR .5", 0.03),
        run=foretold(1.02, "AR .5", normal(0.03)),
        runs=1000,
        few=0,
    ),
    *(
        Trial(
            what=f"the interval against {jobs} jobs in a baseline holds 1",
            world=f"jobs {between:.0%}, processes 2%",
            run=jobs_cover(jobs, between),
            runs=4000,
            few=500 if between == 0.02 else 0,
            least=0.93,
        )
        for jobs in (3, 5)
        for between in (0.01, 0.02, 0.05)
    ),
)
