"""One case under one backend, made ready to be timed: prepared, compared with eager, its memory read."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

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
    """A failure told by another process: a status and a reason."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def outcome(error: BaseException) -> tuple[Status, str]:
    """The status and the reason that an error becomes in a record."""
    if isinstance(error, ReportedError):
        return error.status, error.reason
    if isinstance(error, Unavailable):
        return "skipped", _sentence(error)
    if isinstance(error, AfftoolError):
        return "failed", _sentence(error)
    if _is_out_of_memory(error):
        return "oom", f"out of memory: {_first_line(error)}"
    return "failed", f"{type(error).__name__}: {_first_line(error)}{_place(error)}"


def _sentence(error: AfftoolError) -> str:
    return f"{error.message} (hint: {error.hint})" if error.hint else error.message


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return "DefaultCPUAllocator" in text or "CUDA out of memory" in text


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # "backend='inductor' raised:", and what it raised
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else "no message"


def _place(error: BaseException) -> str:
    """Where in the user's own code it happened: the last line outside of Python, torch and afftool, if any."""
    libraries = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parent, Path(torch.__file__).parent))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", *libraries)) and not _is_pythons(frame.filename):
            return f" ({frame.filename}:{frame.lineno})"
    return ""


def _is_pythons(file: str) -> bool:
    """Whether a file is of the standard library; packages may be installed below it, and are not."""
    paths = sysconfig.get_paths()
    inside = [file.removeprefix(f"{paths[name]}{os.sep}") for name in ("stdlib", "platstdlib")]
    return any(rest != file and not rest.startswith(("site-packages", "dist-packages")) for rest in inside)
