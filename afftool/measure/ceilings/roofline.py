"""What keeps a step from being faster on this machine: launching, memory or arithmetic (the roofline model).

The ceilings are this machine's own, measured once by `afftool doctor --calibrate` and kept in a JSON file beside the
run store, by the fingerprint of the environment. A row's least time is the largest of three that none can beat:

- compute: its FLOPs at the matrix rate of its dtype, or of float32 where a narrow dtype is slower than that. float32's
  rate is that of its fastest kernel under torch's settings in force: on a GPU since Ampere a convolution, which rounds
  to TF32 by default where a matrix product does not. A case's convolutions do the same, so nothing slower bounds it;
- memory: the bytes it must move, at the bandwidth of a working set as small as its inputs and outputs. A backend
  that runs operator by operator moves each one's operands; a compiler may keep everything between on the chip, so
  there only inputs, outputs, parameters and, in training, their gradients and the optimizer's state count. After the
  caches were emptied, what comes from outside (inputs, outputs, parameters, momentum) has main memory's bandwidth;
- launch: operators times the cost of one, where the backend launches them one by one; one launch otherwise.

Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from afftool import written
from afftool.errors import StoreError
from afftool.plain import from_plain, to_plain
from afftool.received import Malformed, json_of, read_text, why
from afftool.record import Environment, Record
from afftool.spec import MODULE, FusionSpec
from afftool.written import Kind

SCHEMA = 1
FILE = "ceilings.json"
_MOST_LOOKED_FOR = 256
"""Calibrations are looked for up to so many threads, on a machine with fewer cores."""
LEAST_RATE, MOST_RATE = 1.0, 1e21
"""Bytes or FLOPs a second of anything that computes."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

BoundBy = Literal["launch", "memory", "compute"]
Rounding = Literal["ieee", "tf32", "bf16"]
"""What float32's operands are rounded to, by torch's names for it; `ieee` is not at all."""


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """The best this machine does: measured, so what a program can reach, not what a data sheet promises.

    `bandwidths` are pairs of working set (bytes) and bandwidth (bytes/s, reads and writes together), smallest set
    first. `flops_per_s` is the matrix rate by dtype, `matrix_sides` the side of the matrices that reached it, and
    `float32_rounding` what float32's operands were rounded to. `launch_s` is the time one small operator takes when
    many are issued in a row, `graph_launch_s` the same inside a CUDA graph. `taken` is when, in ISO 8601.
    """

    device: str
    bandwidths: tuple[tuple[int, float], ...]
    flops_per_s: Mapping[str, float]
    launch_s: float
    graph_launch_s: float | None = None
    matrix_sides: Mapping[str, int] = field(default_factory=dict)
    float32_rounding: Rounding | None = None
    taken: str = ""

    def bandwidth(self, working_set: int) -> float:
        """Bytes/s that a working set can reach at the most: what the next smaller one did when it was measured."""
        smaller = max((size for size, _ in self.bandwidths if size <= working_set), default=0)
        return max(rate for size, rate in self.bandwidths if size >= smaller)

    @property
    def main_memory(self) -> float:
        """Bytes/s beyond every cache: what the largest working set reached."""
        return max(self.bandwidths)[1]

    def matrix_rate(self, dtype: str) -> float:
        """FLOP/s for `dtype`; a dtype that is only emulated can always be widened to float32."""
        return max(self.flops_per_s[dtype], self.flops_per_s["float32"])


@dataclass(frozen=True)
class Bound:
    """What bounds a row, the least time it could take here, and the share of its time that this is."""

    by: BoundBy
    least_ms: float
    least_share: float | None


@dataclass(frozen=True)
class Demand:
    """What a row has to do at the least.

    `working_set` is what goes in and comes out, `launches` how often; `cold_bytes` is the part of `moved_bytes` that no
    cache holds when the step begins.
    """

    flops: int
    moved_bytes: int
    working_set: int
    launches: int
    in_graph: bool = False
    cold_bytes: int = 0


def demand(record: Record) -> Demand | None:
    """The least work of a row, None where its cost was not counted."""
    if record.flops is None or record.moved_bytes is None or record.params is None:
        return None
    outside = _outside_bytes(record)
    weights = record.params * BYTES[record.dtype]
    learning = 0  # bytes of the weights that get a gradient; the optimizer leaves the others alone
    if record.mode == "train":
        learning = (record.params if record.live_params is None else record.live_params) * BYTES[record.dtype]
    optimizer = 5 * learning  # SGD with momentum reads gradient, weight and momentum and writes the last two
    fused = (record.backend or "").startswith("compile")
    if fused:  # the weights, and in training their gradients on the way out
        moved = outside + weights + learning + optimizer
    else:
        moved = record.moved_bytes + (record.backward_moved_bytes or 0) + optimizer
    return Demand(
        flops=record.flops + (record.backward_flops or 0),
        moved_bytes=moved,
        working_set=outside,
        launches=1 if fused else max(1, record.launched_ops or 0),
        in_graph=record.backend == "cudagraph",
        cold_bytes=min(moved, outside + weights + learning) if record.cache == "cold" else 0,
    )


def _outside_bytes(record: Record) -> int:
    """What goes in and comes out: the maps of a bare fusion, the images of a host; in training gradients too."""
    size = tuple(extent for extent in (record.depth, record.height, record.width) if extent is not None)
    batch = record.batch * BYTES[record.dtype]
    if record.host != MODULE.text or record.channels is None:
        return batch * 3 * math.prod(size)
    maps = FusionSpec.parse(record.fusion).map_shapes(record.channels, size)
    one = math.prod((record.channels, *size))  # what comes out
    return batch * (sum(map(math.prod, maps)) + one) * (2 if record.mode == "train" else 1)


def bound(work: Demand, dtype: str, ceilings: Ceilings, latency_ms: float | None = None) -> Bound:
    """The roofline's answer for `work`. Pure."""
    launch_s = ceilings.launch_s
    if work.in_graph and ceilings.graph_launch_s is not None:
        launch_s = ceilings.graph_launch_s
    seconds: dict[BoundBy, float] = {
        "launch": work.launches * launch_s,
        "memory": (work.moved_bytes - work.cold_bytes) / ceilings.bandwidth(work.working_set)
        + work.cold_bytes / ceilings.main_memory,
        "compute": work.flops / ceilings.matrix_rate(dtype),
    }
    by = max(seconds, key=lambda name: seconds[name])
    least_ms = seconds[by] * 1e3
    return Bound(by, least_ms, least_ms / latency_ms if latency_ms else None)


def annotate(record: Record, ceilings: Ceilings | None) -> Record:
    """`record` with `bound`, `least_ms` and `least_share`; as it is where it was not timed, counted or calibrated."""
    if ceilings is None or record.latency_ms is None or record.dtype not in ceilings.flops_per_s:
        return record
    least = demand(record)
    if least is None:
        return record
    found = bound(least, record.dtype, ceilings, record.latency_ms)
    return dataclasses.replace(record, bound=found.by, least_ms=found.least_ms, least_share=found.least_share)


@dataclass(frozen=True)
class CeilingsFile:
    """The calibrations of every machine that used a store, in one JSON file beside it."""

    path: Path
    _machines: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def beside(cls, store: Path) -> CeilingsFile:
        """The file that belongs to the run store at `store`; it may not exist yet. Raises `StoreError`."""
        path = Path(store).parent / FILE
        try:
            document = json_of(read_text(path))
        except FileNotFoundError:
            return cls(path)
        except (OSError, Malformed) as error:
            raise StoreError(f"{path} cannot be read: {why(error)}", hint=_AGAIN) from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise StoreError(f"{path} is not a calibration of this afftool", hint=_AGAIN)
        machines = document.get("machines")
        if not isinstance(machines, dict) or not all(isinstance(devices, dict) for devices in machines.values()):
            raise StoreError(f"{path} is damaged: it holds no machines", hint=_AGAIN)
        return cls(path, machines)

    def find(self, fingerprint: str, device: str) -> Ceilings | None:
        """The ceilings of `device` in the environment called `fingerprint`, None if it was never calibrated.

        Raises `StoreError` if they are damaged.
        """
        kept = self._machines.get(fingerprint, {}).get(_without_index(device))
        if kept is None:
            return None
        try:
            found = from_plain(Ceilings, kept)
            _check_rates(found)
        except TypeError as error:
            raise StoreError(f"{self.path} is damaged: {error}", hint=_AGAIN) from error
        return found

    def other_threads(self, machine: Environment, device: str) -> tuple[int, ...]:
        """With how many threads, other than now, `device` of this machine was calibrated."""
        counts = (n for n in range(1, max(_MOST_LOOKED_FOR, machine.cores) + 1) if n != machine.threads)
        return tuple(n for n in counts if self.find(dataclasses.replace(machine, threads=n).fingerprint, device))

    def keep(self, fingerprint: str, ceilings: Ceilings) -> CeilingsFile:
        """Write `ceilings` beside those of other machines and devices, in one step."""
        machines = {**self._machines, fingerprint: dict(self._machines.get(fingerprint, {}))}
        machines[fingerprint][_without_index(ceilings.device)] = to_plain(ceilings)
        document = json.dumps({"schema": SCHEMA, "machines": machines}, indent=1, sort_keys=True)
        written.write(self.path, document + "\n", _KIND)
        return CeilingsFile(self.path, machines)


def _check_rates(ceilings: Ceilings) -> None:
    """Refuse ceilings that bound nothing: what is divided by a rate has to stay a time. Raises `TypeError`."""
    rates = [*(rate for _, rate in ceilings.bandwidths), *ceilings.flops_per_s.values()]
    if not ceilings.bandwidths:
        raise TypeError("it lacks a bandwidth")
    if ceilings.flops_per_s and "float32" not in ceilings.flops_per_s:
        raise TypeError("it lacks the rate of float32")
    if not all(LEAST_RATE <= rate <= MOST_RATE for rate in rates):
        raise TypeError(f"a rate lies outside of {LEAST_RATE:g} to {MOST_RATE:g} a second")
    if not all(0 <= seconds <= 1 for seconds in (ceilings.launch_s, ceilings.graph_launch_s or 0.0)):
        raise TypeError("a launch takes no time from 0 to 1 s")
    if any(size < 0 for size, _ in ceilings.bandwidths):
        raise TypeError("a working set is below 0")


_KIND = Kind(
    name="calibration of afftool",
    is_ours=lambda head: b'"machines"' in head,
    instead="choose another --store",
    error=StoreError,
)
_AGAIN = "remove it and run `afftool doctor --calibrate` again"


def _without_index(device: str) -> str:
    """`cuda:1` as `cuda`: the fingerprint names the kind of GPU already."""
    return device.partition(":")[0]
