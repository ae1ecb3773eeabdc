"""One case under one backend, made ready to be timed: prepared, compared with eager, its memory read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from afftool import backends, catalog
from afftool.allocator import keep_freed_memory, name_of_allocator
from afftool.backends import Prepared
from afftool.backends.outputs import Outputs, compare
from afftool.backends.workload import Workload, in_double, random_state_kept
from afftool.bench.rows import lacking, with_global_state
from afftool.build import Case
from afftool.errors import Unavailable
from afftool.failure import Failure
from afftool.global_state import kept, runs_unkept
from afftool.measure.memory.peak import measure as measure_memory
from afftool.measure.memory.peak import observe as observe_memory
from afftool.measure.time.caches import flusher
from afftool.measure.time.contestant import Clock, Contestant, Sample, Timed
from afftool.record import Cache, Record
from afftool.registry import load

SEED = 0


class EagerOutputs:
    """What eager makes of a case, worked out once for all of its backends."""

    def __init__(self, case: Case) -> None:
        self._case = case

    @cached_property
    def _outputs(self) -> Outputs:
        return Workload(self._case).outputs(SEED)

    def error_of(self, prepared: Prepared) -> float:
        """How far the prepared case is from eager (`error_vs_eager`). Raises `Rejected` if that is too far."""
        if prepared.backend == "eager":
            return 0.0
        with random_state_kept(self._case):
            return compare(prepared.outputs(SEED), self._outputs, lambda: in_double(self._case, SEED))


@dataclass(frozen=True)
class Entrant:
    """A case ready to be timed, and its record as far as it is known before; `pid` is that of a process of its own."""

    contestant: Contestant
    record: Record
    close: Callable[[], None]
    pid: int | None = None


def enter(
    case: Case, record: Record, *, eager: EagerOutputs, measures: Collection[str], clock: Clock, cache: Cache = "warm"
) -> Entrant:
    """Get a case ready under the backend of its `record`, and fill that in. The case and the random state stay.

    Raises `Unavailable` where this machine cannot run it that way, `Rejected` where its result differs from eager's,
    and whatever the module raises.
    """
    if record.allocator == "kept" and (found := keep_freed_memory()) != "kept":
        raise Unavailable(
            f"freed memory is kept by glibc's malloc alone, and this process has another ({found})",
            hint="--allocator system measures with the one that is there",
        )
    if record.allocator == "system":
        record = replace(record, allocator=name_of_allocator())
    with kept(case.spec.own_targets, "while it ran"), random_state_kept(case):
        prepared, record = _prepare(case, record, measures)
        try:
            record = lacking(replace(record, **asdict(prepared.preparation)), prepared.lacks)
            record = replace(record, writes_inputs=tuple(case.written.values()) or None)
            if "latency" in measures or prepared.backend != "eager":  # no number of a wrong result is kept, of no kind
                record = replace(record, error_vs_eager=eager.error_of(prepared))
            for name in measures:
                if path := catalog.MEASURES[name].path:
                    record = _read(name, load(path), prepared, case, record, alone=set(measures) == {name})
            flush = flusher(case.spec.device) if cache == "cold" and "latency" in measures else None
        except BaseException:
            with contextlib.suppress(Exception):  # the device it would wait for may be what failed: that is to be told
                prepared.close()
            raise
    contestant: Contestant = Timed(prepared, clock, flush)
    if runs_unkept(case.spec.own_targets):
        contestant = _Kept(contestant, case.spec.own_targets)
    return Entrant(contestant, with_global_state(case.spec, record), prepared.close)


@dataclass(frozen=True)
class _Kept:
    """A contestant whose steps set something for the whole process: its neighbours in the race see nothing of it."""

    inner: Contestant
    targets: tuple[str, ...]

    def sample(self, steps: int) -> Sample:
        with kept(self.targets, "while it ran"):
            return self.inner.sample(steps)

    def split(self, steps: int) -> Mapping[str, float]:
        with kept(self.targets, "while it ran"):
            return self.inner.split(steps)

    def move(self) -> None:
        self.inner.move()


Measure = Callable[[Prepared, Case], Mapping[str, Any]]
"""Reads numbers off a prepared case, as fields of a record. Raises `Unavailable` where there are none."""


def _read(name: str, measure: Measure, prepared: Prepared, case: Case, record: Record, *, alone: bool) -> Record:
    """The record with what a measure says, or why it says nothing; if `alone`, `Unavailable` is raised instead."""
    try:
        return replace(record, **measure(prepared, case))
    except Unavailable as missing:
        if alone:
            raise
        return lacking(record, f"no {name}: {Failure.of(missing).reason}")


def _prepare(case: Case, record: Record, measures: Collection[str]) -> tuple[Prepared, Record]:
    """The case prepared, its memory read on the way if that is wanted and there is an allocator to ask."""
    assert record.backend is not None
    prepare = backends.load(record.backend)
    if "memory" not in measures:
        return prepare(case), record
    try:
        if record.backend == "eager":
            record = replace(record, **measure_memory(case).fields)
            return prepare(case), record
        # once for both: compiling again to keep the watching out of compile_s, a few percent, would double its cost
        prepared, reading = observe_memory(case, prepare)
        return prepared, replace(record, **reading.fields)
    except Unavailable:
        if case.spec.device.startswith(("cpu", "cuda")):
            raise
        return prepare(case), record  # a device without an allocator to ask can still be timed
