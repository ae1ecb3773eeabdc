"""A check of the working tree: its measuring, the comparison with a baseline file, and the writing of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from afftool.console import Follow
from afftool.errors import BaselineError, NothingMeasured, UserError
from afftool.gate import reference as files
from afftool.gate.config import GateCase, GateConfig
from afftool.gate.judge import Judgement, Missing, Pair, Verdict, judge
from afftool.gate.reading import METRICS, of_kind
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
from afftool.gate.times import ratio_apart
from afftool.gate.worktree import plan_here, targets
from afftool.global_state import sentence
from afftool.record import Environment

_WORTH_SHARING = 6
"""From so many cases on, a second process saves more than the seconds it needs to start."""
_OFF_CPU = "the peak off the CPU depends on the device and its libraries"

_OTHER_INTERPRETER = "another platform or Python executes other instructions"
_OTHER_PLATFORM = "another platform: its convolutions pack their data in other ways"
"""Seen for x86 without AVX2 against AVX2 and AVX-512, which agree; an ARM or macOS build differs likewise."""


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
    """Measure every case and write the baseline file. Raises `UserError` if one of them cannot run."""
    measured = measure(checking)
    for name, reading in measured.readings.items():
        if reading.status == "failed":
            raise UserError(
                f"no baseline was written: {name} fails: {reading.reason}", hint="mend it, or drop the case"
            )
    kept = {name: reading for name, reading in measured.readings.items() if reading.status == "ok"}
    files.write(path, Reference(readings=kept, environment=measured.environment))
    return measured


def against_reference(checking: Checking, path: Path, on_missing: Missing) -> Judgement:
    """Compare with a baseline file. Raises `BaselineError` for one that is missing or not comparable."""
    notes: list[str] = []
    with graver_first(checking):
        found = _read_reference(path, on_missing)
        if found is not None:
            checking, notes = _comparable(checking, found, path)
    measured = measure(checking, lambda here: None if found is None else _accept(here, checking, found, path))
    known = found or Reference(readings={}, environment=measured.environment)
    other = known.other_machine(measured.environment)
    pairs = [_pair(case, known, measured, other) for case in checking.cases]
    notes += [f"times only advise: the baseline is another machine's ({other})"] if other and known.has_times else []
    gone = sorted(set(known.readings) - {case.name for case in checking.cases})
    notes += [f"in the baseline, no longer checked: {', '.join(gone)}"] if gone else []
    if on_missing == "create" and any(pair.before is None for pair in pairs):
        notes.append(_create(path, known, measured, other))
    notes += global_state_notes(checking, measured.readings)
    verdicts = judge(pairs, checking.config.rules, checking.metrics)
    return judged(checking.config, verdicts, f"baseline {path.name}", "working tree", notes)


def _read_reference(path: Path, on_missing: Missing) -> Reference | None:
    if on_missing != "fail" and not path.exists():
        return None
    return files.read(path)


def _accept(here: Environment, checking: Checking, known: Reference, path: Path) -> None:
    """Refuse what this machine could measure only in vain. Raises `BaselineError`."""
    known.check_software(here)
    other = known.other_machine(here)
    if other and known.has_times and all(METRICS[name].kind == "time" for name in checking.metrics):
        raise BaselineError(
            f"times of the baseline {path.name} are not comparable with times of this machine: {other}",
            hint="add exact metrics, use --against REF, or write a baseline for this machine",
        )


def _comparable(checking: Checking, known: Reference, path: Path) -> tuple[Checking, list[str]]:
    """The check without the times that the baseline does not hold, and a note of that.

    Without a time in it, a baseline has chosen to be exact, and its absence there is not worth a line a case.
    Raises `BaselineError` if nothing is left to judge.
    """
    if known.has_times or not known.readings:
        return checking, []
    rules = [
        (name, checking.config.rules.find(case.name, name)) for name in checking.metrics for case in checking.cases
    ]
    limited = {name for name, rule in rules if rule.max is not None or rule.min is not None}
    left = tuple(name for name in checking.metrics if METRICS[name].kind != "time" or name in limited)
    dropped = sum(name not in left and rule.compares for name, rule in rules)
    if not left:
        raise BaselineError(
            f"the baseline {path.name} holds no times, and only times are to be judged",
            hint="use --against REF, or write times into it: `afftool check --write-baseline --metric exact,time`",
        )
    note = f"the baseline holds no times: {dropped} time rule{'' if dropped == 1 else 's'} not judged"
    return replace(checking, metrics=left), [note] if dropped else []


def _pair(case: GateCase, known: Reference, measured: Measured, other: str | None) -> Pair:
    before, after = known.readings.get(case.name), measured.readings[case.name]
    advisory = dict.fromkeys(of_kind("time"), "another machine") if other else {}
    if other and not case.spec.device.startswith("cpu"):
        advisory["peak_bytes"] = _OFF_CPU
    elif known.environment.platform != measured.environment.platform:
        advisory["peak_bytes"] = _OTHER_PLATFORM
    if any(getattr(known.environment, what) != getattr(measured.environment, what) for what in ("platform", "python")):
        advisory["instructions"] = _OTHER_INTERPRETER
    return Pair(
        case=case.name,
        before=before,
        after=after,
        ratio=ratio_apart(before.times_ms, after.times_ms) if before else None,
        after_ms=(min(after.times_ms), max(after.times_ms)) if after.times_ms else None,
        absent="the baseline does not have this case: write it with `afftool check --write-baseline`",
        advisory=advisory,
    )


def _create(path: Path, known: Reference, measured: Measured, other: str | None) -> str:
    """Add the cases that the baseline lacks to it; what it has stays as it is."""
    added = {
        name: replace(reading, times_ms=()) if other else reading
        for name, reading in measured.readings.items()
        if name not in known.readings and reading.status == "ok"
    }
    files.write(path, Reference(readings={**known.readings, **added}, environment=known.environment))
    return f"written to {path.name}: {', '.join(added) or 'nothing'}"


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
