"""The columns of a bench's tables, one line a stored field. A new field of `Record` is shown by a line here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from afftool import units
from afftool.record import Record
from afftool.report.model import Column

SETTING = ("host", "scenario", "channels", "size", "batch", "mode", "device", "dtype", "memory_format")
"""What a row was measured in, besides its fusion and its backend."""


@dataclass(frozen=True)
class Metric:
    """A measured field: its column, whether less or more of it is better, and in which tables it appears."""

    column: Column
    better: str | None = "less"
    compact: bool = False
    relative: bool = False


def _metric(name: str, heading: str, show: Any, better: str | None = "less", **where: bool) -> Metric:
    return Metric(Column(name, heading, show, numeric=True), better, **where)


def _percent(value: float) -> str:
    return f"{units.significant(100 * value, 2)}%"


METRICS: tuple[Metric, ...] = (
    _metric("params", "params", units.count, compact=True, relative=True),
    _metric("live_params", "live params", units.count, None),
    _metric("macs", "MACs", units.scaled, compact=True, relative=True),
    _metric("flops", "FLOPs", units.scaled, relative=True),
    _metric("moved_bytes", "bytes moved", units.data, relative=True),
    _metric("backward_macs", "MACs backward", units.scaled, relative=True),
    _metric("backward_flops", "FLOPs backward", units.scaled, relative=True),
    _metric("backward_moved_bytes", "bytes moved backward", units.data, relative=True),
    _metric("latency_ms", "latency", units.milliseconds, compact=True, relative=True),
    _metric("latency_interval", "95% interval", str, None, compact=True),
    _metric("latency_iqr_ms", "IQR", units.milliseconds, None),
    _metric("latency_p99_ms", "p99", units.milliseconds),
    _metric("forward_ms", "forward", units.milliseconds),
    _metric("backward_ms", "backward", units.milliseconds),
    _metric("optimizer_ms", "optimizer", units.milliseconds),
    _metric("throughput_per_s", "samples/s", units.scaled, "more"),
    _metric("samples", "timings", units.count, None),
    _metric("outliers", "outliers", units.count, None),
    _metric("warmup_s", "warm-up", units.seconds, None),
    _metric("allocator", "freed memory", str, None),
    _metric("bound", "bound by", str, None, compact=True),
    _metric("least_ms", "least possible", units.milliseconds, None),
    _metric("least_share", "of the possible", _percent, None, compact=True),
    _metric("energy_j", "energy per step", lambda value: f"{units.significant(value)} J"),
    _metric("peak_bytes", "peak memory", units.data, compact=True, relative=True),
    _metric("cold_peak_bytes", "cold peak", units.data, None),
    _metric("param_bytes", "params memory", units.data, None),
    _metric("gradient_bytes", "gradients", units.data, None),
    _metric("optimizer_bytes", "optimizer state", units.data, None),
    _metric("saved_bytes", "saved for backward", units.data, relative=True),
    _metric("workspace_bytes", "workspace", units.data, None),
    _metric("graph_pool_bytes", "graph pool", units.data, None),
    _metric("reserved_bytes", "reserved", units.data, None),
    _metric("first_call_s", "first call", units.seconds, None),
    _metric("compile_s", "compile", units.seconds, None),
    _metric("capture_s", "capture", units.seconds, None),
    _metric("graph_breaks", "graph breaks", str, None),
    _metric("guards", "guards", units.count, None),
    _metric("recompiles", "recompiles", str, None),
    _metric("error_vs_eager", "error vs eager", lambda value: units.significant(value, 2), None),
)


def cell(record: Record, name: str) -> Any:
    """The value of one column: a stored field, or one made of several."""
    if name == "size":
        return size_of(record)
    if name == "latency_interval":
        if record.latency_low_ms is None or record.latency_high_ms is None:
            return None
        return f"{units.milliseconds(record.latency_low_ms)} to {units.milliseconds(record.latency_high_ms)}"
    return getattr(record, name, None)


def size_of(record: Record) -> str | None:
    """The extents of the maps, outermost first, as `56x56`."""
    extents = [n for n in (record.depth, record.height, record.width) if n is not None]
    return "x".join(map(str, extents)) or None


def setting_of(record: Record) -> tuple[Any, ...]:
    """What must be equal for two rows to be compared, the backend aside."""
    return tuple(cell(record, name) for name in SETTING)
