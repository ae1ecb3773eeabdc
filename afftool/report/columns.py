"""The columns of a bench's tables, one line a stored field. A new field of `Record` is shown by a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from afftool import units
from afftool.record import Record
from afftool.report.usable import interval_or_why
from afftool.spec import show_size
from afftool.tables import Column


def _size(record: Record) -> str | None:
    """The extents of the maps, outermost first, as `56x56`."""
    return show_size([n for n in (record.depth, record.height, record.width) if n is not None]) or None


FUSION: Column[Record] = Column("fusion", "fusion")
SETTING: tuple[Column[Record], ...] = (
    Column("host", "host"),
    Column("scenario", "scenario"),
    Column("channels", "channels", numeric=True),
    Column("size", "size", get=_size),
    Column("batch", "batch", numeric=True),
    Column("mode", "mode"),
    Column("device", "device"),
    Column("dtype", "dtype"),
    Column("memory_format", "memory format"),
)
"""What a row was measured in, besides its fusion and its backend."""
BACKEND: Column[Record] = Column("backend", "backend")
ALLOCATOR: Column[Record] = Column("allocator", "freed memory")
"""What became of freed memory while a row was timed; what takes no time has none."""

Keys = Sequence[Column[Record]]
"""The columns that tell a table's rows apart."""


def alike(records: Iterable[Record]) -> dict[str, Any]:
    """The settings that all rows share, by the column's name."""
    given = list(records)
    values = {column.name: {column.value(record) for record in given} for column in SETTING}
    return {name: found.pop() for name, found in values.items() if len(found) == 1}


def setting_of(record: Record) -> tuple[Any, ...]:
    """What must be equal for two rows to be compared, the backend aside."""
    return tuple(column.value(record) for column in SETTING)


def keys_of(records: Sequence[Record]) -> Keys:
    """Fusion, backend and the settings that differ between the rows; the others are said once, above the table."""
    shared = alike(records)
    varying = [column for column in SETTING if column.name not in shared] if records else []
    regimes = {ALLOCATOR.value(r) for r in records} - {None}
    return (FUSION, *varying, BACKEND, *([ALLOCATOR] if len(regimes) > 1 else []))


def row_name(record: Record, keys: Keys, *, between: str = " ") -> str:
    """What these columns say of a row, as `add eager`."""
    return between.join(str(value) for column in keys if (value := column.value(record)) is not None)


def _groups(record: Record) -> str | None:
    fast, slow, share = record.fast_group_ms, record.slow_group_ms, record.slow_group_share
    if fast is None or slow is None or share is None or record.processes is None:
        return None
    many = round(share * record.processes)
    return (
        f"{units.milliseconds(fast)} in {record.processes - many} of {record.processes}, "
        f"{units.milliseconds(slow)} in {many}"
    )


def _two_digits(value: float) -> str:
    return units.significant(value, 2)


def share(value: float) -> str:
    """A share of a whole, in percent."""
    return f"{_two_digits(100 * value)}%"


def _some(name: str) -> Callable[[Record], float | None]:
    """The column's value where there is anything to say, as 0 is what everybody expects."""
    return lambda record: getattr(record, name) or None


@dataclass(frozen=True)
class Quantity(Column[Record]):
    """A measured field's column: whether less or more of it is better, and in which tables it appears."""

    numeric: bool = True
    better: Literal["less", "more"] | None = field(default="less", kw_only=True)
    compact: bool = field(default=False, kw_only=True)
    relative: bool = field(default=False, kw_only=True)


GROUPS = Quantity("latency_groups", "two groups of processes", better=None, compact=True, get=_groups)
QUANTITIES: tuple[Quantity, ...] = (
    Quantity("params", "params", units.count, compact=True, relative=True),
    Quantity("live_params", "live params", units.count, better=None),
    Quantity("macs", "MACs", units.scaled, compact=True, relative=True),
    Quantity("flops", "FLOPs", units.scaled, relative=True),
    Quantity("moved_bytes", "bytes moved", units.data, relative=True),
    Quantity("backward_macs", "MACs backward", units.scaled, relative=True),
    Quantity("backward_flops", "FLOPs backward", units.scaled, relative=True),
    Quantity("backward_moved_bytes", "bytes moved backward", units.data, relative=True),
    Quantity("latency_ms", "latency", units.milliseconds, compact=True, relative=True),
    Quantity("latency_interval", "95% interval", better=None, compact=True, get=interval_or_why),
    Quantity("processes", "processes", units.count, better=None),
    GROUPS,
    Quantity("latency_iqr_ms", "IQR", units.milliseconds, better=None),
    Quantity("latency_p99_ms", "p99", units.milliseconds),
    Quantity("single_steps", "single steps", units.count, better=None),
    Quantity("forward_ms", "forward", units.milliseconds),
    Quantity("backward_ms", "backward", units.milliseconds),
    Quantity("optimizer_ms", "optimizer", units.milliseconds),
    Quantity("throughput_per_s", "samples/s", units.scaled, better="more"),
    Quantity("samples", "timings", units.count, better=None),
    Quantity("outliers", "outliers", units.count, better=None),
    Quantity("warmup_s", "warm-up", units.seconds, better=None),
    Quantity("page_faults", "page faults", units.scaled, better=None),
    Quantity("bound", "bound by", better=None, compact=True),
    Quantity("least_ms", "least possible", units.milliseconds, better=None),
    Quantity("least_share", "of the possible", share, better=None, compact=True),
    Quantity("energy_j", "energy per step", lambda value: f"{units.significant(value)} J"),
    Quantity("peak_bytes", "peak memory", units.data, compact=True, relative=True),
    Quantity("cold_peak_bytes", "cold peak", units.data, better=None),
    Quantity("param_bytes", "params memory", units.data, better=None),
    Quantity("gradient_bytes", "gradients", units.data, better=None),
    Quantity("optimizer_bytes", "optimizer state", units.data, better=None),
    Quantity("saved_bytes", "saved for backward", units.data, relative=True),
    Quantity("workspace_bytes", "workspace", units.data, better=None),
    Quantity("graph_pool_bytes", "graph pool", units.data, better=None),
    Quantity("reserved_bytes", "reserved", units.data, better=None),
    Quantity("requested_bytes", "requested", units.data, better=None),
    Quantity("first_call_s", "first call", units.seconds, better=None),
    Quantity("compile_s", "compile", units.seconds, better=None),
    Quantity("capture_s", "capture", units.seconds, better=None),
    Quantity("graph_breaks", "graph breaks", better=None),
    Quantity("guards", "guards", units.count, better=None),
    Quantity("recompiles", "recompiles", better=None),
    Quantity("cuda_graphs", "CUDA graphs", better=None),
    Quantity("skipped_graphs", "graphs not CUDA graphs", better=None),
    Quantity("error_vs_eager", "error vs eager", _two_digits, better=None),
    Quantity("rms_error_vs_eager", "RMS error vs eager", _two_digits, better=None),
    Quantity("differing_share", "differs from eager in", share, better=None, get=_some("differing_share")),
    Quantity("nonfinite_share", "not finite", share, better=None, compact=True, get=_some("nonfinite_share")),
)
