"""Jobs of a baseline: this job's times beside those of others of the same code, which tell by how much jobs differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from afftool import units
from afftool.errors import BaselineError, NothingMeasured
from afftool.gate import explain
from afftool.gate import reference as files
from afftool.gate.check import Checking, graver_first, refuse_nothing
from afftool.gate.contest import TAIL
from afftool.gate.reading import Reading
from afftool.gate.reference import Reference
from afftool.gate.side import Readings, add_times_apart, read_environment, read_exact
from afftool.gate.times import FEWEST_JOBS, ratio_of_jobs
from afftool.record import Environment
from afftool.stats import median

_TELLTALES = ("params", "macs", "operators")
"""Exact metrics that are cheap to read and tell other code from the baseline's."""


@dataclass(frozen=True)
class Jobs:
    """What a baseline knows once a job was added: of how many cases, of how many jobs at least.

    `visible` is the smallest slowdown that stands out from what jobs differ by, in every case; None below three jobs.
    """

    cases: int
    fewest: int
    visible: float | None

    def told(self, path: Path) -> str:
        """What was added, and what it is good for."""
        cases = f"{self.cases} case{'' if self.cases == 1 else 's'}"
        head = f"added this job's times of {cases} to {path.name}, which knows {self.fewest} jobs now; commit it"
        if self.visible is None:
            left = FEWEST_JOBS - self.fewest
            return f"{head}. Times only advise until there are {FEWEST_JOBS}: add {left} more"
        return f"{head}. Times decide: changes from {units.percent(self.visible)} on stand out in every case"


def job_advice(path: Path) -> str:
    """How times against the baseline file come to decide."""
    return (
        f"this was one job, and no job tells by how much jobs differ: times against {path.name} only advise until it "
        f"holds {FEWEST_JOBS} jobs of the same code and machine ({explain.HOW_TO_ADD_JOBS}); --against REF needs none"
    )


def add_job(checking: Checking, path: Path) -> Jobs:
    """Time every case of a baseline file once more, and keep this job's median of each beside what is there.

    Raises `BaselineError` where the file has no times, or is another machine's or of other code.
    """
    with graver_first(checking):
        known = files.read(path)
        timed = [case for case in checking.cases if (there := known.readings.get(case.name)) and there.times_ms]
        if not timed:
            raise BaselineError(
                f"the baseline {path.name} holds no times of these cases, to which those of this job could be added",
                hint="write them first: `afftool check --write-baseline --metric exact,time`",
            )
    with checking.here_side() as side:
        _accept_job(read_environment(side, timed), known, path)
        (found,) = read_exact([side], timed, _TELLTALES, checking.follow)
        refuse_nothing(found, checking.config)
        for case in timed:
            _refuse_other_code(case.name, known.readings[case.name], found[case.name], path)
        add_times_apart(side, timed, found, budget_s=checking.budget_s, follow=checking.follow)
    added = {
        name: replace(known.readings[name], jobs_ms=(*known.readings[name].jobs_ms, median(now.times_ms)))
        for name, now in found.items()
        if now.times_ms
    }
    if not added:
        raise NothingMeasured(f"no case could be timed: {'; '.join(_unread(found))}")
    files.write(path, replace(known, readings={**known.readings, **added}))
    return _known(list(added.values()))


def _unread(found: Readings) -> list[str]:
    return [f"{name}: {reading.reason or reading.unread.get('latency_ms')}" for name, reading in found.items()]


def _known(readings: Sequence[Reading]) -> Jobs:
    """What these cases of a baseline say of jobs."""
    tail = TAIL / len(readings)
    ratios = [ratio_of_jobs(reading.jobs, median(reading.jobs), tail=tail) for reading in readings]
    reaches = [ratio.high / ratio.estimate - 1 for ratio in ratios if ratio is not None]
    fewest = min(len(reading.jobs) for reading in readings)
    return Jobs(len(readings), fewest, max(reaches) if len(reaches) == len(readings) else None)


def _accept_job(here: Environment, known: Reference, path: Path) -> None:
    """Refuse a job that cannot be a further one of the baseline's. Raises `BaselineError`."""
    known.check_software(here)
    if other := known.other_machine(here):
        raise BaselineError(
            f"times of this machine are no further job of the baseline {path.name}: {other}",
            hint="add jobs on machines of the baseline's kind, or write a baseline for this one",
        )


def _refuse_other_code(case: str, before: Reading, now: Reading, path: Path) -> None:
    """Jobs of other code would pass its change off as what jobs differ by. Raises `BaselineError`."""
    for name in _TELLTALES:
        if name in before.values and name in now.values and before.values[name] != now.values[name]:
            raise BaselineError(
                f"{case} is no longer the code of the baseline {path.name}: {name} {now.values[name]:,}, there "
                f"{before.values[name]:,}",
                hint="check out the code it was written from, or write it again with `afftool check --write-baseline`",
            )
