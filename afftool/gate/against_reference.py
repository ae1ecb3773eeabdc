"""Against a baseline file: the working tree as this job measures it, and what the file says of another day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from afftool.errors import BaselineError
from afftool.gate import explain
from afftool.gate import reference as files
from afftool.gate.check import Checking, Measured, global_state_notes, graver_first, judged, measure
from afftool.gate.config import GateCase
from afftool.gate.contest import TAIL
from afftool.gate.judge import Judgement, Missing, Pair, judge
from afftool.gate.reading import METRICS, of_kind
from afftool.gate.reference import Reference
from afftool.gate.rules import Rule
from afftool.gate.times import FEWEST_JOBS, ratio_apart, ratio_of_jobs
from afftool.record import Environment
from afftool.stats import median

_OFF_CPU = "the peak off the CPU depends on the device and its libraries"

_OTHER_INTERPRETER = "another platform or Python executes other instructions"
_OTHER_PLATFORM = "another platform: its convolutions pack their data in other ways"
"""Seen for x86 without AVX2 against AVX2 and AVX-512, which agree; an ARM or macOS build differs likewise."""


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
    if checking.timed and known.has_times:
        notes += _notes_on_times(pairs, other)
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


def _notes_on_times(pairs: Sequence[Pair], other: str | None) -> list[str]:
    """On what times stand that are compared with those of other jobs."""
    if other:
        return [f"times only advise: the baseline is another machine's ({other})"]
    jobs = [len(pair.before.times_ms) for pair in pairs if pair.before and pair.ratio and not pair.ratio_advises]
    notes = []
    if reasons := dict.fromkeys(pair.ratio_advises for pair in pairs if pair.ratio_advises):
        notes += [f"times only advise: {'; '.join(map(str, reasons))}: {explain.HOW_TO_ADD_JOBS}, or use --against REF"]
    if jobs:
        said = f"{min(jobs)}" if min(jobs) == max(jobs) else f"{min(jobs)} to {max(jobs)}"
        notes += [f"times are compared with {said} jobs in the baseline; their intervals hold what jobs differ by"]
    return notes


def _accept(here: Environment, checking: Checking, known: Reference, path: Path) -> None:
    """Refuse what this machine could measure only in vain. Raises `BaselineError`."""
    known.check_software(here)
    other = known.other_machine(here)
    if other and known.has_times and all(METRICS[name].kind == "time" for name in checking.metrics):
        raise BaselineError(
            f"times of the baseline {path.name} are not comparable with times of this machine: {other}",
            hint="add exact metrics, use --against REF, or write a baseline for this machine",
        )
    if of_kind("time", checking.metrics) == list(checking.metrics) and not _limited(checking):
        jobs = [len(reading.jobs) for case in checking.cases if (reading := known.readings.get(case.name))]
        if 0 < max(jobs, default=0) < FEWEST_JOBS:
            raise BaselineError(
                f"times of one job cannot be judged by those of another: {explain.unknown_jobs(max(jobs))}",
                hint=f"use --against REF, add exact metrics, or more jobs: {explain.HOW_TO_ADD_JOBS}",
            )


def _comparable(checking: Checking, known: Reference, path: Path) -> tuple[Checking, list[str]]:
    """The check without the times that the baseline does not hold, and a note of that.

    Without a time in it, a baseline has chosen to be exact, and its absence there is not worth a line a case.
    Raises `BaselineError` if nothing is left to judge.
    """
    if known.has_times or not known.readings:
        return checking, []
    rules, limited = _asked_rules(checking), _limited(checking)
    left = tuple(name for name in checking.metrics if METRICS[name].kind != "time" or name in limited)
    dropped = sum(name not in left and rule.compares for name, rule in rules)
    if not left:
        raise BaselineError(
            f"the baseline {path.name} holds no times, and only times are to be judged",
            hint="use --against REF, or write times into it: `afftool check --write-baseline --metric exact,time`",
        )
    note = f"the baseline holds no times: {dropped} time rule{'' if dropped == 1 else 's'} not judged"
    return replace(checking, metrics=left), [note] if dropped else []


def _asked_rules(checking: Checking) -> list[tuple[str, Rule]]:
    """The metrics that are asked for, each with its rule for each case."""
    return [(name, checking.config.rules.find(case.name, name)) for name in checking.metrics for case in checking.cases]


def _limited(checking: Checking) -> set[str]:
    """Those that some rule holds to a limit, which needs nothing to compare with."""
    return {name for name, rule in _asked_rules(checking) if rule.max is not None or rule.min is not None}


def _pair(case: GateCase, known: Reference, measured: Measured, other: str | None) -> Pair:
    before, after = known.readings.get(case.name), measured.readings[case.name]
    advisory = dict.fromkeys(of_kind("time"), "another machine") if other else {}
    if other and not case.spec.device.startswith("cpu"):
        advisory["peak_bytes"] = _OFF_CPU
    elif known.environment.platform != measured.environment.platform:
        advisory["peak_bytes"] = _OTHER_PLATFORM
    if any(getattr(known.environment, what) != getattr(measured.environment, what) for what in ("platform", "python")):
        advisory["instructions"] = _OTHER_INTERPRETER
    ratio, advises = None, None
    if before is not None and after.times_ms:
        timed = sum(bool(reading.times_ms) for reading in measured.readings.values())
        if not other:
            ratio = ratio_of_jobs(before.jobs, median(after.times_ms), tail=TAIL / timed)
        if ratio is not None:
            before = replace(before, times_ms=before.jobs)
        elif before.times_ms:
            ratio = ratio_apart(before.times_ms, after.times_ms)
            advises = None if other else explain.unknown_jobs(len(before.jobs))
    return Pair(
        case=case.name,
        before=before,
        after=after,
        ratio=ratio,
        ratio_advises=advises,
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
