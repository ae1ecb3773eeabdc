"""Everything a profile's report says, as one value that goes to JSON and back: its rows, and the profile.

Times are totals over the traced steps in microseconds, unless named otherwise.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afftool.errors import LoadError
from afftool.plain import from_plain, to_plain
from afftool.received import Malformed, json_of, read_text, why
from afftool.record import Environment
from afftool.written import replacing


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


SCHEMA = 1

_LARGEST_NUMBER = 1e18
"""Microseconds, bytes and calls; sums of many of them stay finite."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One traced case: what it was, and its tables. Times are totals over the steps, unless named otherwise."""

    case: Mapping[str, Any]
    """`fusion`, `host`, `backend`, `mode`, `device` and so on, as a record has them."""
    environment: Mapping[str, Any]
    tables_from: str
    """Who read operators, kernels and categories off the trace."""
    steps: int
    """Traced steps, which the totals of the tables are over."""
    steps_us: list[float]
    """Each step; torch-tb-profiler leaves out a last one whose device work the trace does not have in full."""
    operators: list[OperatorRow]
    kernels: list[KernelRow]
    categories: list[CategoryRow]
    modules: list[ModuleRow]
    gaps: list[GapRow]
    memory: list[MemoryCurve]
    notes: list[str] = dataclasses.field(default_factory=list)
    instability: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the machine did besides while the steps were traced, as a record has it."""
    nonfinite_share: float | None = None
    """Of the values of a step's outputs and gradients: how many are infinite or NaN."""

    @property
    def name(self) -> str:
        """What the case is called in a heading: its fusion, and what is not the default about the rest."""
        host, backend = self.case.get("host", "module"), self.case.get("backend", "eager")
        parts = [str(self.case["fusion"])]
        parts += [f"in {host}"] if host != "module" else []
        parts += [f"({backend})"] if backend != "eager" else []
        return " ".join(parts)

    @property
    def step_us(self) -> float:
        """Microseconds of the average traced step."""
        return sum(self.steps_us) / len(self.steps_us) if self.steps_us else 0.0

    @property
    def on_device(self) -> bool:
        """Whether anything ran on an accelerator."""
        return any(row.device_self_us for row in self.operators) or bool(self.kernels)

    def kinds(self) -> list[tuple[str, int, float]]:
        """Self time by kind of operator: kind, calls, microseconds on the device if there is one, else on the host."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        for row in self.operators:
            sums[row.kind][0] += row.calls
            sums[row.kind][1] += row.device_self_us if self.on_device else row.host_self_us
        return sorted(((kind, int(n), us) for kind, (n, us) in sums.items()), key=lambda k: (-k[2], k[0]))

    def to_dict(self) -> dict[str, Any]:
        """The profile as JSON takes it."""
        return {"schema": SCHEMA, **to_plain(self)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Profile:
        """The profile back from `to_dict`. Raises `LoadError` for another schema, `TypeError` for a damaged one."""
        if fields.get("schema") != SCHEMA:
            raise LoadError(
                f"this profile has schema {fields.get('schema')!r}, not {SCHEMA}",
                hint="profile again with this afftool",
            )
        return from_plain(cls, fields)


def save(profile: Profile, path: Path) -> None:
    """Write a profile as JSON."""
    with replacing(path) as part:
        part.write_text(json.dumps(profile.to_dict(), indent=1) + "\n")


def load(path: Path) -> Profile:
    """Read a profile that `save` wrote. Raises `LoadError`."""
    try:
        fields = json_of(read_text(path), largest=_LARGEST_NUMBER)
    except FileNotFoundError as error:
        raise LoadError(
            f"no profile at {path}", hint="`afftool profile --fusion NAME --out FOLDER` writes one"
        ) from error
    except (OSError, Malformed) as error:
        raise LoadError(f"{path} is not a readable profile: {why(error)}", hint="profile again") from error
    try:
        profile = Profile.from_dict(fields)
        if profile.environment:
            Environment.from_dict(dict(profile.environment))
    except (TypeError, AttributeError) as error:
        raise LoadError(f"{path} is not a profile of afftool: {error}", hint="profile again") from error
    if not isinstance(profile.case.get("fusion"), str):
        raise LoadError(f"{path} is not a profile of afftool: it names no fusion", hint="profile again")
    return profile
