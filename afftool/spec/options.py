"""How a bench measures, whatever it measures: the one container for that, from the command line to the rows."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from afftool import catalog
from afftool.errors import SpecError
from afftool.record import Cache, Isolation
from afftool.registry import check_names
from afftool.spec.amounts import MOST_PROCESSES, check_above_0, check_whole
from afftool.spec.fusion import FusionSpec
from afftool.spec.sweep import DEFAULT_BASELINE

Regime = Literal["system", "kept"]
"""What becomes of freed CPU memory: as the process's allocator likes, or kept."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure, whatever is measured: made once, by a command or a caller, and lent to `bench`.

    `backends` are all that the cases' devices can run if there is none. `budget_s` are the seconds of warm-up and
    sampling for the whole bench, shared by its rows; compiling is not in it. Sampling stops earlier, after half of
    that, where the 95% interval of every median is within `precision`. The `baseline` is measured along with every
    group that lacks it. `isolate` runs each row in a process of its own; `auto` does so where compiling or capturing
    for CUDA could disturb a neighbour's memory; `process` keeps modules of the user's own out of this one altogether,
    so that one which ends its process is a row that says so. Such a process is ended where it is not ready after
    `timeout_s`, or does not answer later for many times longer than its steps took; nothing ends a row that hangs in
    this process. Where a kernel takes the device from this process, all further rows run in others. `cache="cold"`
    empties the caches before every timed step.

    On the CPU `allocator` says in what kind of process a row is timed. `system` is the one a user's script runs in: the
    C library's allocator does as it likes, and what it does differs from process to process, so a row is timed in
    several fresh ones (`processes`), which do nothing else, and each is one draw: of one alone nothing is known but
    itself, and where they differ by 2%, three show a tenth in 81% of benches, five in nearly all; with `isolate="none"`
    in this one. `kept` holds on to freed memory, in this process: steadier, and what a process can be made to do.
    `both` gives two rows, which are never compared with each other's baseline. Raises `UnknownName`, `SpecError`.
    """

    backends: tuple[str, ...] = ("eager",)
    measures: tuple[str, ...] = ("cost", "latency", "memory")
    budget_s: float = 10.0
    precision: float = 0.01
    isolate: Literal["auto", "none", "process"] = "auto"
    timeout_s: float = 1800.0
    cache: Cache = "warm"
    allocator: Literal["system", "kept", "both"] = "system"
    processes: int = 5
    baseline: FusionSpec | None = field(default_factory=lambda: FusionSpec.parse(DEFAULT_BASELINE))

    def __post_init__(self) -> None:
        check_names("backend", self.backends, catalog.BACKENDS)
        check_names("measure", self.measures, catalog.MEASURES)
        check_above_0("--budget", self.budget_s, hint="for example --budget 30")
        if not 0 < self.precision < 1:  # said so, not-a-number is refused as well
            raise SpecError(f"--precision must be between 0 and 1, not {self.precision:g}", hint="0.01 means 1%")
        check_above_0("--timeout", self.timeout_s, most=math.inf, hint="for example --timeout 600")
        check_whole("--processes", self.processes, most=MOST_PROCESSES, hint="for example --processes 5")

    @property
    def executes(self) -> bool:
        """Whether anything asked for needs the case to run; counting does not."""
        return any(name != "cost" for name in self.measures)

    def backends_on(self, devices: Collection[str]) -> tuple[str, ...]:
        """The backends, each once, for cases on these devices: those for CUDA are measured elsewhere only if named."""
        cuda = any(device.startswith("cuda") for device in devices)
        usable = [name for name, backend in catalog.BACKENDS.items() if cuda or not backend.needs_cuda]
        return tuple(dict.fromkeys(self.backends or usable)) if self.executes else ()

    def regimes_on(self, device: str) -> tuple[Regime | None, ...]:
        """What freed memory is to do in the processes that time a row on this device; None where that is no matter."""
        if "latency" not in self.measures or not device.startswith("cpu"):
            return (None,)
        return ("system", "kept") if self.allocator == "both" else (self.allocator,)

    def isolation_on(self, devices: Collection[str]) -> Isolation:
        """Whether rows run in processes of their own, for cases on these devices."""
        if not self.executes:
            return "none"
        if self.isolate != "auto":
            return self.isolate
        disturbing = any(name != "eager" for name in self.backends_on(devices))
        return "process" if disturbing and any(device.startswith("cuda") for device in devices) else "none"
