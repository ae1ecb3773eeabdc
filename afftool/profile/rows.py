"""The rows of a profile's tables. Times are totals over the traced steps in microseconds, unless named otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OperatorRow:
    """One operator. Self is what it did itself, total includes what it called; device is what it launched."""

    name: str
    kind: str
    calls: int
    host_self_us: float
    host_total_us: float
    device_self_us: float = 0.0
    device_total_us: float = 0.0


@dataclass(frozen=True, kw_only=True)
class KernelRow:
    """One kernel on the device. Occupancy is the profiler's estimate, weighted by time."""

    name: str
    calls: int
    total_us: float
    mean_us: float
    min_us: float
    max_us: float
    occupancy_percent: float | None = None
    blocks_per_sm: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModuleRow:
    """One module by its path. Forward is from entering to leaving it on the host, self without its submodules.

    Backward is the host time of the autograd nodes its operators made, submodules included.
    """

    path: str
    type: str
    calls: int = 0
    forward_us: float = 0.0
    forward_self_us: float = 0.0
    backward_us: float = 0.0
    forward_device_us: float = 0.0
    backward_device_us: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CategoryRow:
    """How much of an average step a category takes: each moment counts once, for the first category that is busy."""

    category: str
    step_us: float


@dataclass(frozen=True, kw_only=True)
class GapRow:
    """Idle time between neighbours on one device (or, where there is none, between the host's operators)."""

    where: str
    gaps: int
    total_us: float
    share: float
    """Of the time from the first to the last of them."""
    median_us: float
    longest_us: float
    longest_between: str


@dataclass(frozen=True, kw_only=True)
class MemoryCurve:
    """Bytes over time on one device: `points` are `(microseconds, allocated, reserved)`.

    On the CPU the profiler counts from the trace's start, so what was there before (the parameters) is not in it.
    """

    device: str
    points: tuple[tuple[float, int, int], ...]
    peak_bytes: int
    peak_at_us: float
    peak_operator: str
    allocations: int
    allocated_bytes: int


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What either reader, torch-tb-profiler's or our own, says about a trace."""

    operators: list[OperatorRow]
    kernels: list[KernelRow]
    categories: list[CategoryRow]
    steps_us: list[float]
