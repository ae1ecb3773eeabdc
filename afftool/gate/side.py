"""One side of a comparison, in a process of its own, and the readings that are asked of it, case by case.

The process sleeps between questions, so that while one side is timed the other takes no time from it. What goes wrong
with a case becomes a reading that says so.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from afftool.allocator import KEEPING
from afftool.console import Follow
from afftool.errors import (
    AfftoolError,
    BaselineError,
    BatchStatisticsError,
    Rejected,
    ShapeError,
    Unavailable,
    UserError,
)
from afftool.failure import Failure
from afftool.gate.config import GateCase
from afftool.gate.reading import Reading, is_time, of_kind
from afftool.gate.times import PROCESSES, times_apart
from afftool.gate.worktree import ImportPlan
from afftool.process import Answer, Child, ChildEnded, ChildFailed, ChildSilent
from afftool.record import Environment

PROTOCOL = 2
"""Its number changes with the verbs of `afftool.gate.worker` and with what they take and answer.

But for `environment`, which is asked of the working tree alone and never of an older commit.
"""
SILENT_S = 1800.0
"""A side owes no answer that long, a compilation included: something hangs in it."""

Readings = dict[str, Reading]
"""By the name of their case."""


class CaseError(AfftoolError):
    """The code that was measured raised an exception of its own."""


class CrashError(CaseError):
    """The process ended without an answer: a crash in the code that was measured."""


class Side:
    """A worker process that builds and measures cases, with so many CPU threads. Use it as a context manager.

    It keeps the memory that it frees, as `bench --allocator kept` does, whatever commit its afftool is of.
    """

    def __init__(self, directory: Path, imports: ImportPlan, *, threads: int = 1) -> None:
        self.directory = directory
        self._imports = imports
        self._threads = threads
        self._child: Child | None = None
        self._greeted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def ask(self, question: str, **fields: Any) -> Answer:
        """Send a question and wait for its answer, starting the process if it does not run.

        Raises what the other side raised if it is one of `afftool.errors`, and `CaseError` for anything else: for an
        answer that cannot be, too, since the code that is measured runs where it is made.
        """
        self.send(question, **fields)
        return self.answer()

    def send(self, question: str, **fields: Any) -> None:
        """Send a question; `answer` waits for the answer. Two sides can so work at the same time."""
        self.wait()
        assert self._child is not None
        try:
            self._child.send(question, **fields)
        except ChildEnded as ended:
            raise self._crashed(f"the process died ({ended.how})") from ended

    def answer(self) -> Answer:
        """The answer to the question sent last. Raises as `ask` does."""
        assert self._child is not None
        try:
            return _believable(self._child.answer(timeout_s=SILENT_S))
        except ChildFailed as failed:
            raise self._error(failed.failure) from failed
        except ChildEnded as ended:
            raise self._crashed(f"the process died ({ended.how})") from ended
        except ChildSilent as silent:
            raise self._crashed(silent.failure.message) from silent
        except (ValueError, TypeError, RecursionError) as error:  # what is no JSON, or no answer
            raise self._crashed(f"its process gave no answer that can be read: {error}") from error

    def stop(self) -> None:
        """End the process and everything it started; the next question starts a fresh one."""
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def start(self) -> None:
        """Start a fresh process, without waiting until it can be asked: two sides can so start at the same time."""
        self.stop()
        environment = {
            # What becomes of freed memory is luck for as long as a process lives: left to it, one process in four of
            # the gate's own trial took 12% longer, and twenty pairs could not tell equals from a slowdown of 5%.
            **{name: os.environ.get(name, value) for name, value in KEEPING.items()},
            **({"PYTHONPATH": self._python_path()} if self._imports.own_afftool else {}),
            "PYTHONDONTWRITEBYTECODE": "1",  # the user's tree stays as it is
            "OMP_NUM_THREADS": str(self._threads),
            "MKL_NUM_THREADS": str(self._threads),
        }
        self._child = Child("afftool.gate.worker", directory=self.directory, environment=environment)
        self._greeted = False

    def wait(self) -> None:
        """Wait until the process can be asked, starting it if it does not run. Raises `BaselineError` if it cannot."""
        if self._child is None:
            self.start()
        if self._greeted:
            return
        self._greeted = True
        tree = None if self._imports.tree is None else str(self._imports.tree)
        # A commit's own afftool has all of it on its path, and may be too old to be told more.
        places = {} if self._imports.own_afftool else {"places": list(map(str, self._imports.paths))}
        try:
            hello = self.ask("hello", packages=list(self._imports.packages), tree=tree, **places)
        except CaseError as error:
            raise BaselineError(
                f"no afftool worker starts in {self.directory}",
                hint="the afftool of that commit may be too old for `check --against`",
            ) from error
        if (spoken := hello.get("protocol")) != PROTOCOL:
            raise BaselineError(
                f"the afftool of {self.directory} speaks another protocol ({reprlib.repr(spoken)}, not {PROTOCOL})",
                hint="compare with a newer ref, or use --baseline",
            )

    def _python_path(self) -> str:
        return os.pathsep.join([*map(str, self._imports.paths), *filter(None, [os.environ.get("PYTHONPATH")])])

    def _crashed(self, how: str) -> CrashError:
        self.stop()
        return CrashError(how, hint="run the fusion by itself to see why")

    def _error(self, failure: Failure) -> AfftoolError:
        """The error that the other side raised; what the measured code did to a case is a `CaseError`."""
        if failure.kind in (CaseError.__name__, Rejected.__name__):
            return CaseError(failure.message)
        if failure.error is not None:
            return failure.error
        place = f" ({failure.place.removeprefix(f'{self.directory}{os.sep}')})" if failure.place else ""
        return CaseError(f"{failure.kind}: {' '.join(failure.message.split()) or 'no message'}{place}")


class _Told(Answer):
    """An answer; what it should hold and does not is the fault of whoever gave it."""

    def __missing__(self, name: str) -> Any:
        raise CaseError(f"its process gave an answer without {name}")


def _believable(answer: Answer) -> Answer:
    """An answer whose numbers can be. Raises `ValueError`."""
    if not isinstance(answer, dict):
        raise ValueError("it is no object")
    answer = _Told(answer)
    if "step_ms" in answer and not is_time(answer["step_ms"]):
        raise ValueError(f"step_ms is {reprlib.repr(answer['step_ms'])}, no time in ms")
    if "instructions" in answer:
        Reading(values={"instructions": answer["instructions"]})
    return answer


def case_fields(case: GateCase) -> dict[str, Any]:
    """A case as JSON takes it; `afftool.gate.worker` reads it back."""
    return {**case.spec.fields(), "backend": case.backend}


def read_environment(side: Side, cases: Iterable[GateCase]) -> Environment:
    """The machine and the software of a side, with the GPU that its `cases` run on, if any does."""
    device = next((case.spec.device for case in cases if case.spec.device != "cpu"), "cpu")
    try:
        return Environment.from_dict(side.ask("environment", device=device)["environment"])
    except TypeError as error:
        raise UserError(
            f"the worker in {side.directory} does not say where it runs: {error}",
            hint="something that is imported there answers in its place",
        ) from error


def read_exact(
    sides: Sequence[Side], cases: Sequence[GateCase], metrics: Iterable[str], follow: Follow
) -> list[Readings]:
    """The exact metrics of every case on every side; the sides work at the same time.

    The last side is the candidate: what the user's words get wrong there is raised (`UserError`). On the others it
    means that they do not know the case.
    """
    wanted = of_kind("exact", metrics)
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
    wanted = of_kind("exact", metrics)
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
    except TypeError as error:
        return Reading(status="failed", reason=f"its process gave no reading: {error}")
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
    reasons = dict.fromkeys(of_kind("time"), error.message)
    return replace(reading, unread={**reading.unread, **reasons})


def failed_reasons(readings: Mapping[str, Reading]) -> list[str]:
    """Every case that could not be measured, with why."""
    return [f"{name}: {reading.reason}" for name, reading in readings.items() if reading.status != "ok"]
