"""A profile in words and tables (`afftool.tables`), for every format."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from afftool import units
from afftool.profile.summary import CategoryRow, GapRow, KernelRow, MemoryCurve, ModuleRow, OperatorRow, Profile
from afftool.record import Environment
from afftool.report.columns import share
from afftool.report.exact import as_they_are
from afftool.report.lines import machine, software
from afftool.spec import show_size
from afftool.tables import Bar, Chart, Column, Report, Table

if TYPE_CHECKING:
    import pandas

Item = TypeVar("Item")

SHOWN = 25
SHOWN_MODULES = 60
"""Rows of a long table that people get to read; CSV and JSON have all of them."""
UNEVEN = 2.0
"""Steps of one trace that differ by more than this were not left alone."""
DISTURBED = (
    "Something else ran here meanwhile: an operator that waited for its turn looks slow. Calls, modules and memory are "
    "as they are; for times, profile again on a quiet machine, or with --threads auto, which uses the free cores alone."
)
_SPARKS = "▁▂▃▄▅▆▇█"
_TIDY = (
    "table",
    "name",
    "kind",
    "calls",
    "host_self_us",
    "host_total_us",
    "device_self_us",
    "device_total_us",
    "backward_us",
)


def microseconds(value: float) -> str:
    """A time given in microseconds, in the unit that fits."""
    return units.milliseconds(value / 1000)


def column(name: str, heading: str, kind: str = "text", get: Callable[[Item], Any] | None = None) -> Column[Item]:
    """A column of a profile's table; `kind` is text, count, time, share or data."""
    show: dict[str, Callable[[Any], str]] = {
        "text": str,
        "count": units.count,
        "time": microseconds,
        "share": units.percent,
        "data": units.data,
    }
    return Column(name, heading, show[kind], numeric=kind != "text", get=get)


def profile_report(profile: Profile) -> Report:
    """The report of one profile."""
    tables = (_categories(profile), _kinds(profile), _operators(profile), _kernels(profile), _modules(profile))
    kinds = profile.kinds()
    chart = Chart("Self time by kind of operator", microseconds, tuple(Bar(k, us) for k, _, us in kinds if us > 0))
    return Report(
        title=f"Profile of {profile.name}",
        facts=facts(profile),
        tables=tuple(t for t in (*tables, _gaps(profile), _memory(profile)) if t.rows),
        data=tidy(profile),
        document=profile.to_dict(),
        charts=(chart,) if chart.bars else (),
        notes=(
            *_not_finite(profile),
            *profile.notes,
            *([DISTURBED] if profile.instability else []),
            "The profiler itself takes time, most of it from small operators: read shares and calls here, and take "
            "times to compare from `afftool bench`.",
        ),
    )


def _not_finite(profile: Profile) -> tuple[str, ...]:
    if not profile.nonfinite_share:
        return ()
    return (f"Not finite: {share(profile.nonfinite_share)} of what a step gives, gradients too, is infinite or NaN.",)


def facts(profile: Profile) -> tuple[tuple[str, str], ...]:
    """What was profiled, where, how, and who read the tables."""
    case = {key: value for key, value in profile.case.items() if value is not None and key != "identity"}
    shape = [f"{case[key]} {key}" for key in ("channels",) if key in case]
    extents = [case[key] for key in ("depth", "height", "width") if key in case]
    setting = [f"batch {case.get('batch', '?')}", *shape, show_size(extents)]
    setting += [str(case[key]) for key in ("mode", "device", "dtype", "memory_format") if key in case]
    lines = [
        ("Case", f"{case['fusion']} in {case.get('host', 'module')}, {case.get('backend', 'eager')}"),
        ("Input", ", ".join(part for part in setting if part)),
        ("Traced", _steps(profile)),
        ("Times", "totals over the traced steps, as TensorBoard shows them, unless a heading says a step"),
        ("Operator, kernel and category tables read by", profile.tables_from),
    ]
    if profile.environment:
        environment = Environment.from_dict(dict(profile.environment))
        lines += [("Machine", machine(environment)), ("Software", software(environment))]
    return tuple(lines)


def _steps(profile: Profile) -> str:
    if not profile.steps_us:
        return "no step"
    low, high = min(profile.steps_us), max(profile.steps_us)
    spread = f"{microseconds(low)} to {microseconds(high)}, {microseconds(profile.step_us)} on average"
    uneven = "; uneven, so something else ran here too: profile again" if high > UNEVEN * low else ""
    disturbed = "".join(f"; disturbed by a {kind}: {text}" for kind, text in profile.instability.items())
    return f"{len(profile.steps_us)} steps after warm-up: {spread}{uneven}{disturbed}"


def _categories(profile: Profile) -> Table:
    step = profile.step_us or 1.0
    columns: tuple[Column[CategoryRow], ...] = (
        column("category", "category"),
        column("step_us", "a step", "time"),
        column("share", "share", "share", lambda row: row.step_us / step),
    )
    return Table.of(
        "Where a step goes",
        (row for row in profile.categories if row.step_us > 0),
        columns,
        note="Every moment counts once, for the first of these that was busy. Other is what lies between operators: "
        "Python, mostly.",
    )


def _kinds(profile: Profile) -> Table:
    kinds = profile.kinds()
    whole = sum(us for _, _, us in kinds) or 1.0
    where = "device" if profile.on_device else "host"
    columns: tuple[Column[tuple[str, int, float]], ...] = (
        column("kind", "kind", get=lambda row: row[0]),
        column("calls", "calls", "count", lambda row: row[1]),
        column("self_us", f"self, {where}", "time", lambda row: row[2]),
        column("share", "share", "share", lambda row: row[2] / whole),
    )
    return Table.of("Self time by kind of operator", kinds, columns)


def _operators(profile: Profile) -> Table:
    whole = sum(_self_us(profile, row) for row in profile.operators) or 1.0
    columns: list[Column[OperatorRow]] = [
        column("name", "operator"),
        column("kind", "kind"),
        column("calls", "calls", "count"),
        column("share", "share of self", "share", lambda row: _self_us(profile, row) / whole),
        column("host_self_us", "host self", "time"),
        column("host_total_us", "host total", "time"),
    ]
    if profile.on_device:
        columns += [column("device_self_us", "device self", "time"), column("device_total_us", "device total", "time")]
    return first_rows(Table.of("Operators", profile.operators, columns)).without_empty_columns()


def _self_us(profile: Profile, row: OperatorRow) -> float:
    return row.device_self_us if profile.on_device else row.host_self_us


def _kernels(profile: Profile) -> Table:
    whole = sum(row.total_us for row in profile.kernels) or 1.0
    columns: tuple[Column[KernelRow], ...] = (
        column("name", "kernel"),
        column("calls", "calls", "count"),
        column("share", "share", "share", lambda row: row.total_us / whole),
        column("total_us", "total", "time"),
        column("mean_us", "mean", "time"),
        column("min_us", "least", "time"),
        column("max_us", "most", "time"),
        Column("occupancy_percent", "occupancy (est.)", lambda value: f"{value:.0f}%", numeric=True),
        Column("blocks_per_sm", "blocks per SM", lambda value: units.significant(value, 2), numeric=True),
    )
    return first_rows(Table.of("Kernels", profile.kernels, columns)).without_empty_columns()


def _modules(profile: Profile) -> Table:
    device, backward = profile.on_device, any(row.backward_us for row in profile.modules)
    columns: list[Column[ModuleRow]] = [
        column("path", "module"),
        column("type", "type"),
        column("calls", "calls", "count"),
        column("forward_us", "forward", "time"),
        column("forward_self_us", "forward self", "time"),
    ]
    columns += [column("backward_us", "backward", "time")] if backward else []
    columns += [column("forward_device_us", "device, forward", "time")] if device else []
    columns += [column("backward_device_us", "device, backward", "time")] if device and backward else []
    return first_rows(Table.of("Modules", profile.modules, columns), SHOWN_MODULES).without_empty_columns()


def _gaps(profile: Profile) -> Table:
    columns: tuple[Column[GapRow], ...] = (
        column("where", "where"),
        column("gaps", "gaps", "count"),
        column("total_us", "total", "time"),
        column("share", "share of the time", "share"),
        column("median_us", "median", "time"),
        column("longest_us", "longest", "time"),
        column("longest_between", "longest is between"),
    )
    return Table.of(
        "Gaps between kernels" if profile.kernels else "Gaps between operators",
        profile.gaps,
        columns,
        note=""
        if profile.kernels
        else "A CPU has no kernels to wait for: these are the host's own gaps, Python mostly.",
    )


def _memory(profile: Profile) -> Table:
    columns: tuple[Column[MemoryCurve], ...] = (
        column("device", "device"),
        column("peak_bytes", "peak", "data"),
        column("peak_at_us", "at", "time"),
        column("peak_operator", "allocated there by"),
        column("allocations", "allocations", "count"),
        column("allocated_bytes", "allocated in all", "data"),
        column("curve", "over time", get=sparkline),
    )
    return Table.of(
        "Memory curve",
        profile.memory,
        columns,
        note="From the allocator's own events; on the CPU only what was allocated within the trace. "
        "memory.csv has every point.",
    )


def sparkline(curve: MemoryCurve, width: int = 40) -> str:
    """The curve as a row of blocks, each as high as the most that was held in its share of the time."""
    if not curve.points or curve.peak_bytes <= 0:
        return ""
    start, end = curve.points[0][0], curve.points[-1][0]
    most, held = [0] * width, 0
    slot = 0
    for at, allocated, _ in curve.points:
        now = min(width - 1, int((at - start) / (end - start) * width)) if end > start else 0
        for passed in range(slot, now + 1):
            most[passed] = max(most[passed], held)
        slot, held = now, allocated
        most[now] = max(most[now], allocated)
    return "".join(_SPARKS[round(value / curve.peak_bytes * (len(_SPARKS) - 1))] for value in most)


def memory_csv(profile: Profile) -> str:
    """Every point of the memory curves."""
    lines = ["device,time_us,allocated_bytes,reserved_bytes"]
    lines += [f"{m.device},{at!r},{held},{reserved}" for m in profile.memory for at, held, reserved in m.points]
    return "\n".join(lines) + "\n"


def tidy(profile: Profile) -> pandas.DataFrame:
    """Every operator, kernel and module as one row of one table, exactly."""
    rows: list[dict[str, object]] = []
    for operator in profile.operators:
        rows.append({"table": "operator", **dataclasses.asdict(operator)})
    for kernel in profile.kernels:
        rows.append({"table": "kernel", "name": kernel.name, "calls": kernel.calls, "device_self_us": kernel.total_us})
    for module in profile.modules:
        rows.append(
            {
                "table": "module",
                "name": module.path,
                "kind": module.type,
                "calls": module.calls,
                "host_self_us": module.forward_self_us,
                "host_total_us": module.forward_us,
                "device_total_us": module.forward_device_us,
                "backward_us": module.backward_us,
            }
        )
    for category in profile.categories:
        rows.append({"table": "category", "name": category.category, "host_total_us": category.step_us})
    return as_they_are(rows, _TIDY)


def first_rows(table: Table, shown: int = SHOWN) -> Table:
    """The table with its first rows only, saying where the others are."""
    return table.first_rows(shown, "{} more in the CSV and JSON files.")
