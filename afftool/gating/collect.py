"""Asking sides for readings, case by case, and turning what goes wrong into readings that say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from afftool.errors import AfftoolError, BatchStatisticsError, ShapeError, Unavailable, UserError
from afftool.gating.apart import PROCESSES, times_apart
from afftool.gating.config import GateCase
from afftool.gating.contest import Question
from afftool.gating.metrics import METRICS
from afftool.gating.reading import Reading
from afftool.gating.rules import RuleBook, slowdown_limit
from afftool.gating.side import CaseError, Side, case_fields
from afftool.record import Environment

Readings = dict[str, Reading]


class Follow(Protocol):
    """Hears how far the check is."""

    def __call__(self, done: float, total: float, doing: str) -> None:
        """So much of the whole is done, and this is going on now."""


def read_environment(side: Side) -> Environment:
    """The machine and the software of a side."""
    return Environment.from_dict(side.ask("environment")["environment"])


def read_exact(
    sides: Sequence[Side], cases: Sequence[GateCase], metrics: Iterable[str], follow: Follow
) -> list[Readings]:
    """The exact metrics of every case on every side; the sides work at the same time.

    The last side is the candidate: what the user's words get wrong there is raised (`UserError`). On the others it
    means that they do not know the case.
    """
    wanted = [name for name in metrics if METRICS[name].kind == "exact"]
    found: list[Readings] = [{} for _ in sides]
    for number, case in enumerate(cases):
        follow(number, len(cases), f"exact metrics of {case.name}")
        answers = [_asked(side, case, wanted) for side in sides]
        for position, (side, sent) in enumerate(zip(sides, answers, strict=True)):
            candidate = position == len(sides) - 1
            found[position][case.name] = _reading(side, sent, candidate)
    return found


def read_exact_shared(
    sides: Sequence[Side], cases: Sequence[GateCase], metrics: Iterable[str], follow: Follow
) -> Readings:
    """The exact metrics of every case, each read by one of several sides of the same tree: nothing is timed."""
    wanted = [name for name in metrics if METRICS[name].kind == "exact"]
    found: Readings = {}
    for first in range(0, len(cases), len(sides)):
        shared = list(zip(sides, cases[first:], strict=False))
        follow(first, len(cases), f"exact metrics of {shared[0][1].name}")
        answers = [_asked(side, case, wanted) for side, case in shared]
        for (side, case), sent in zip(shared, answers, strict=True):
            found[case.name] = _reading(side, sent, candidate=True)
    return found


def _asked(side: Side, case: GateCase, metrics: Sequence[str]) -> AfftoolError | None:
    """Send the question; the error if not even that was possible."""
    try:
        side.send("exact", case=case_fields(case), metrics=list(metrics))
    except CaseError as error:
        return error
    return None


def _reading(side: Side, unsent: AfftoolError | None, candidate: bool) -> Reading:
    try:
        if unsent is not None:
            raise unsent
        return Reading.from_dict(side.answer()["reading"])
    except Unavailable as error:
        return Reading(status="skipped", reason=error.message)
    except (CaseError, ShapeError, BatchStatisticsError) as error:
        return Reading(status="failed", reason=error.message)
    except UserError as error:
        if candidate:
            raise
        return Reading(status="failed", reason=error.message)


def add_instructions(
    sides: Sequence[Side], cases: Sequence[GateCase], found: Sequence[Readings], follow: Follow
) -> None:
    """Count instructions of every case that runs on every side; all sides at once, since nothing is timed."""
    for number, case in enumerate(cases):
        follow(number, len(cases), f"instructions of {case.name}")
        if any(readings[case.name].status != "ok" for readings in found):
            continue
        for side in sides:
            side.send("instructions", case=case_fields(case))
        for side, readings in zip(sides, found, strict=True):
            reading = readings[case.name]
            try:
                count = side.answer()["instructions"]
            except (CaseError, Unavailable) as error:
                readings[case.name] = replace(reading, unread={**reading.unread, "instructions": error.message})
            else:
                readings[case.name] = replace(reading, values={**reading.values, "instructions": count})


def add_times_apart(side: Side, cases: Sequence[GateCase], found: Readings, *, budget_s: float, follow: Follow) -> None:
    """Time every case that runs, in a few fresh processes one after the other."""
    running = [case for case in cases if found[case.name].status == "ok"]
    times: dict[str, list[float]] = {case.name: [] for case in running}
    while running:

        def told(process: int, position: int, running: Sequence[GateCase] = running) -> None:
            done = process * len(running) + position
            follow(done, PROCESSES * len(running), f"time of {running[position].name}")

        taken = 0
        try:
            questions = [case_fields(case) for case in running]
            for position, step_ms in times_apart(side, questions, budget_s=budget_s, told=told):
                times[running[position].name].append(step_ms)
                taken += 1
            break
        except (CaseError, Unavailable) as error:
            failed = running[taken % len(running)]
            running = [case for case in running if case is not failed]
            times = {case.name: [] for case in running}
            found[failed.name] = without_time(found[failed.name], error)
    for name, medians in times.items():
        found[name] = replace(found[name], times_ms=tuple(medians))


def without_time(reading: Reading, error: AfftoolError) -> Reading:
    """The reading of a case that could not be timed, with the reason."""
    reasons = dict.fromkeys((name for name, metric in METRICS.items() if metric.kind == "time"), error.message)
    return replace(reading, unread={**reading.unread, **reasons})


def question(rules: RuleBook, case: GateCase, metrics: Iterable[str]) -> Question:
    """What a contest over this case has to find out: the tightest of its rules on time."""
    judged = [
        (METRICS[name], rule)
        for name in metrics
        if METRICS[name].kind == "time" and (rule := rules.find(case.name, name)).compares
    ]
    batch = case.spec.batch

    def limit(before_ms: float) -> float:
        limits = [
            slowdown_limit(metric, rule, 1000 * batch / before_ms if metric.higher_is_better else before_ms)
            for metric, rule in judged
        ]
        return min(limits, default=float("inf"))

    return Question(limit)


def failed_reasons(readings: Mapping[str, Reading]) -> list[str]:
    """Every case that could not be measured, with why."""
    return [f"{name}: {reading.reason}" for name, reading in readings.items() if reading.status != "ok"]
