"""A check of the working tree: what every way to check needs, its measuring, and the writing of a baseline file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from afftool.console import Follow
from afftool.errors import BaselineError, NothingMeasured, UserError
from afftool.gate import reference as files
from afftool.gate.config import GateCase, GateConfig
from afftool.gate.judge import Judgement, Verdict
from afftool.gate.reading import of_kind
from afftool.gate.reference import Reference
from afftool.gate.side import (
    Readings,
    Side,
    add_instructions,
    add_times_apart,
    failed_reasons,
    read_environment,
    read_exact,
    read_exact_shared,
)
from afftool.gate.worktree import plan_here, targets
from afftool.global_state import sentence
from afftool.record import Environment

_WORTH_SHARING = 6
"""From so many cases on, a second process saves more than the seconds it needs to start."""


@dataclass(frozen=True, kw_only=True)
class Checking:
    """What every way to check needs: cases and rules, metrics, where the code is, seconds of timing a case.

    One CPU thread by default: the exact metrics are then the same on every machine, and a time is disturbed least.
    """

    config: GateConfig
    metrics: tuple[str, ...]
    here: Path
    budget_s: float
    follow: Follow
    threads: int = 1

    @property
    def cores(self) -> tuple[int, ...]:
        """The cores that the two sides of a contest may share, the first (it serves the interrupts) last.

        None with several threads, and where the system does not let a process choose.
        """
        if self.threads > 1 or not hasattr(os, "sched_getaffinity"):
            return ()
        return tuple(sorted(os.sched_getaffinity(0), reverse=True))

    def here_side(self) -> Side:
        """A process for the working tree."""
        return Side(self.here, plan_here(self.here, targets(self.cases)), threads=self.threads)

    @property
    def cases(self) -> tuple[GateCase, ...]:
        """The cases to measure."""
        return self.config.cases

    @property
    def timed(self) -> bool:
        """Whether any metric needs a clock."""
        return bool(of_kind("time", self.metrics))


@dataclass(frozen=True)
class Measured:
    """This side's readings and where they were taken."""

    readings: Readings
    environment: Environment


def _anywhere(here: Environment) -> None:
    """Measure on whatever machine this is."""


def measure(checking: Checking, accept: Callable[[Environment], None] = _anywhere) -> Measured:
    """Read every case of the working tree, once `accept` has not refused the machine and its software.

    Raises `UserError`, and `NothingMeasured` if no case runs, before what `accept` raises.
    """
    with checking.here_side() as side:
        environment = read_environment(side, checking.cases)
        with graver_first(checking):
            accept(environment)
        readings = _read_exact_here(checking, side, environment)
        if "instructions" in checking.metrics:
            add_instructions([side], checking.cases, [readings], checking.follow)
        if checking.timed:
            add_times_apart(side, checking.cases, readings, budget_s=checking.budget_s, follow=checking.follow)
    refuse_nothing(readings, checking.config)
    return Measured(readings, environment)


@contextmanager
def graver_first(checking: Checking) -> Iterator[None]:
    """A baseline that is refused in the block is so only once the working tree's own cases were tried.

    What they are refused for goes before: of two faults the same one is told, whichever is found first. Raises
    `UserError`, `NothingMeasured`, and then the block's `BaselineError`.
    """
    try:
        yield
    except BaselineError:
        _try_cases(checking)
        raise


def _try_cases(checking: Checking) -> None:
    """Build every case and run it as little as tells whether it runs. Raises `UserError` and `NothingMeasured`."""
    with checking.here_side() as side:
        (readings,) = read_exact([side], checking.cases, ["params"], checking.follow)
    refuse_nothing(readings, checking.config)


def _read_exact_here(checking: Checking, side: Side, environment: Environment) -> Readings:
    if len(checking.cases) < _WORTH_SHARING or environment.cores < 2:
        return read_exact([side], checking.cases, checking.metrics, checking.follow)[0]
    with checking.here_side() as second:
        return read_exact_shared([side, second], checking.cases, checking.metrics, checking.follow)


def write_reference(checking: Checking, path: Path) -> Measured:
    """Measure every case and write the baseline file.

    Raises `UserError` if one of them cannot run, and `BaselineError` for a path that cannot be written.
    """
    measured = measure(checking)
    for name, reading in measured.readings.items():
        if reading.status == "failed":
            raise UserError(
                f"no baseline was written: {name} fails: {reading.reason}", hint="mend it, or drop the case"
            )
    kept = {name: reading for name, reading in measured.readings.items() if reading.status == "ok"}
    files.write(path, Reference(readings=kept, environment=measured.environment))
    return measured


def global_state_notes(checking: Checking, readings: Readings) -> list[str]:
    """What files of the working tree set for the whole process, once a file."""
    told = {case.spec.own_targets: found for case in checking.cases if (found := readings[case.name].global_state)}
    return [sentence(targets, found) for targets, found in told.items()]


def refuse_nothing(readings: Readings, config: GateConfig) -> None:
    """Raise `NothingMeasured` if no case could be measured."""
    if any(reading.status == "ok" for reading in readings.values()):
        return
    reasons = failed_reasons(readings)
    raise NothingMeasured(
        f"none of the {len(readings)} cases could be measured: {'; '.join(reasons[:3])}",
        hint=f"see the cases in {config.file.name if config.file else 'the command line'}, and `afftool doctor`",
    )


def judged(
    config: GateConfig, verdicts: tuple[Verdict, ...], before: str, after: str, notes: Sequence[str]
) -> Judgement:
    """The verdicts and what was skipped before. Raises `NothingMeasured` if nothing was judged."""
    if all(verdict.outcome == "skipped" for verdict in verdicts):
        reasons = dict.fromkeys(str(verdict.reason) for verdict in verdicts)
        raise NothingMeasured(
            f"nothing was judged: {'; '.join(reasons) or 'the rules switch off every metric that was asked for'}",
            hint="ask for other metrics with --metric, or give the metric a rule",
        )
    skipped = tuple(
        Verdict(case=name, metric="case", outcome="skipped", reason=reason) for name, reason in config.skipped
    )
    return Judgement((*verdicts, *skipped), before, after, tuple(notes))
