"""One case under one backend, made ready to be timed: prepared, compared with eager, its memory read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from afftool import backends, catalog
from afftool.allocator import keep_freed_memory, name_of_allocator
from afftool.backends import Prepared
from afftool.backends.outputs import NO_TIME, Agreement, Outputs, agree
from afftool.backends.rounding import jumps
from afftool.backends.workload import OWN_INPUTS, Workload, in_double, random_state_kept
from afftool.bench.rows import lacking, with_global_state
from afftool.build import Case
from afftool.errors import Rejected, Unavailable
from afftool.failure import Failure
from afftool.global_state import kept, runs_unkept
from afftool.measure.memory.peak import measure as measure_memory
from afftool.measure.memory.peak import observe as observe_memory
from afftool.measure.time.caches import flusher
from afftool.measure.time.contestant import Clock, Contestant, Sample, Timed
from afftool.record import Cache, Record
from afftool.registry import load

SEEDS = (OWN_INPUTS, 1, 2)
"""Inputs that a backend is compared on: the case's own, and others like them where those leave a doubt."""


class EagerOutputs:
    """What eager makes of a case, worked out once for all of its backends."""

    def __init__(self, case: Case) -> None:
        self._case = case

    @cached_property
    def _outputs(self) -> Outputs:
        with random_state_kept(self._case):
            return Workload(self._case).outputs(OWN_INPUTS)

    def judged(self, prepared: Prepared) -> Mapping[str, Any]:
        """The fields of a record that say what the prepared case gives. Raises `Rejected` if it differs from eager.

        One input alone refuses nobody: what differs must do so on most of `SEEDS`.
        """
        if prepared.backend == "eager":
            return _fields(Agreement(), self._outputs)
        with random_state_kept(self._case):
            found = prepared.outputs(OWN_INPUTS)
            near = self._agreement(prepared, OWN_INPUTS, found)
            if near.fault:
                others = [self._agreement(prepared, seed, prepared.outputs(seed)) for seed in SEEDS[1:]]
                faulty = 1 + sum(other.fault is not None for other in others)
                if faulty > 1:
                    raise Rejected(
                        f"differs from eager: {near.fault}; so on {faulty} of {len(SEEDS)} inputs",
                        hint=_advice(prepared.backend, sure=faulty == len(SEEDS)),
                    )
                prepared.outputs(OWN_INPUTS)  # its inputs are the case's again
        return _fields(near, found)

    def _agreement(self, prepared: Prepared, seed: int, found: Outputs) -> Agreement:
        eager = self._outputs if seed == OWN_INPUTS else Workload(self._case).outputs(seed)
        return agree(found, eager, lambda: in_double(self._case, seed), lambda: jumps(self._case, seed, eager))


def _advice(backend: str, *, sure: bool) -> str:
    """What to do about a wrong result; the compiler is blamed only where every input shows it."""
    if sure and backend.startswith("compile"):
        return f"{NO_TIME}, or report the compiler's mistake to PyTorch"
    return NO_TIME


def _fields(near: Agreement, found: Outputs) -> Mapping[str, Any]:
    return {
        "error_vs_eager": near.error,
        "rms_error_vs_eager": near.rms_error,
        "differing_share": near.differing_share,
        "nonfinite_share": found.nonfinite_share,
    }


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
            # no number of a wrong result is kept, of no kind
            record = replace(record, **eager.judged(prepared))
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

    def singly(self, steps: int) -> Sequence[float]:
        with kept(self.targets, "while it ran"):
            return self.inner.singly(steps)

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
