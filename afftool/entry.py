"""One case under one backend, made ready to be timed: prepared, compared with eager, its memory read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from afftool import backends
from afftool.backends import Prepared
from afftool.backends.outputs import Outputs, compare
from afftool.backends.workload import Workload, in_double, random_state_kept
from afftool.build import Case
from afftool.errors import AfftoolError, Unavailable
from afftool.measure import energy
from afftool.measure.allocator import keep_freed_memory
from afftool.measure.clock import Clock
from afftool.measure.contestant import Contestant, Timed
from afftool.measure.flush import flusher
from afftool.process import ChildEnded, ChildFailed, Failure
from afftool.record import Status

SEED = 0


class Reference:
    """What eager makes of a case, worked out once for all of its backends."""

    def __init__(self, case: Case) -> None:
        self._case = case

    @cached_property
    def _eager(self) -> Outputs:
        return Workload(self._case).outputs(SEED)

    def error_of(self, prepared: Prepared) -> float:
        """How far the prepared case is from eager (`error_vs_eager`). Raises `Rejected` if that is too far."""
        if prepared.backend == "eager":
            return 0.0
        with random_state_kept(self._case):
            return compare(prepared.outputs(SEED), self._eager, lambda: in_double(self._case, SEED))


@dataclass(frozen=True)
class Entry:
    """A case ready to be timed, and the fields of its record that are known before."""

    contestant: Contestant
    fields: dict[str, Any]
    close: Callable[[], None]
    pid: int | None = None


def enter(
    case: Case, backend: str, *, reference: Reference, measures: Collection[str], clock: Clock, cache: str = "warm"
) -> Entry:
    """Get a case ready under a backend. The case and the random state stay as they were.

    Raises `Unavailable` where this machine cannot run it that way, `Rejected` where its result differs from eager's,
    and whatever the module raises.
    """
    fields: dict[str, Any] = {}
    if "latency" in measures and case.spec.device.startswith("cpu"):
        fields["allocator"] = keep_freed_memory()
    with random_state_kept(case):
        prepared = _prepare(case, backend, measures, fields)
        try:
            fields |= asdict(prepared.preparation)
            if "latency" in measures or backend != "eager":  # no number of a wrong result is kept, of no kind
                fields["error_vs_eager"] = reference.error_of(prepared)
            if "energy" in measures:
                fields |= _energy(prepared, case, measures)
            flush = flusher(case.spec.device) if cache == "cold" and "latency" in measures else None
        except BaseException:
            prepared.close()
            raise
    return Entry(Timed(prepared, clock, flush), fields, prepared.close)


def _energy(prepared: Prepared, case: Case, measures: Collection[str]) -> dict[str, Any]:
    """The energy of a step, or why there is none. Raises `Unavailable` if nothing else was asked for."""
    try:
        return {"energy_j": energy.measure(prepared.run, case.spec.device)}
    except Unavailable as missing:
        if set(measures) == {"energy"}:
            raise
        return {"reason": f"no energy: {_sentence(missing)}"}


def _prepare(case: Case, backend: str, measures: Collection[str], fields: dict[str, Any]) -> Prepared:
    prepare = backends.load(backend)
    if "memory" not in measures:
        return prepare(case)
    from afftool.measure import memory

    try:
        if backend == "eager":
            fields |= memory.measure(case).fields
            return prepare(case)
        # once for both: compiling again to keep the watching out of compile_s, a few percent, would double its cost
        prepared, reading = memory.observe(case, prepare)
        fields |= reading.fields
        return prepared
    except Unavailable:
        if case.spec.device.startswith(("cpu", "cuda")):
            raise
        return prepare(case)  # a device without an allocator to ask can still be timed


class ReportedError(Exception):
    """A failure whose status and reason are known already."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def outcome(error: BaseException) -> tuple[Status, str]:
    """The status and the reason that an error, of this process or of a child, becomes in a record."""
    if isinstance(error, ReportedError):
        return error.status, error.reason
    if isinstance(error, ChildEnded):
        return "failed", f"its process ended: {'killed by ' if error.killed else ''}{error.how}"
    failure = error.failure if isinstance(error, ChildFailed) else Failure.of(error)
    if (known := failure.error) is not None:
        return ("skipped" if isinstance(known, Unavailable) else "failed"), _sentence(known)
    if failure.out_of_memory:
        return "oom", f"out of memory: {_first_line(failure.message)}"
    place = f" ({failure.place})" if failure.place else ""
    return "failed", f"{failure.kind}: {_first_line(failure.message)}{place}"


def _sentence(error: AfftoolError) -> str:
    return f"{error.message} (hint: {error.hint})" if error.hint else error.message


def _first_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # "backend='inductor' raised:", and what it raised
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else "no message"
