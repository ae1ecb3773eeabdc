"""In a line or two: a record at the moment it is measured, an environment above a report."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from afftool import units
from afftool.record import Environment, Record
from afftool.report.columns import GROUPS, SETTING, share
from afftool.report.usable import read_of, unusable


def setting_line(shared: Mapping[str, Any]) -> str:
    """What all rows share, as `columns.alike` tells it, to be said once above them; empty if that is nothing."""
    return ", ".join(
        f"{column.heading} {shared[column.name]}"
        for column in SETTING
        if column.name != "scenario" and shared.get(column.name) is not None
    )


def one_line(record: Record, shared: Mapping[str, Any] = MappingProxyType({})) -> str:
    """What was measured and what came out, or why nothing did; of its setting what is not `shared` by all rows."""
    head = " ".join(str(part) for part in (record.fusion, record.backend) if part)
    own = [
        f"{column.heading} {value}"
        for column in SETTING
        if column.name != "scenario"
        and (value := column.value(record)) is not None
        and (column.name not in shared or shared[column.name] != value)
    ]
    head += f" ({', '.join(own)})" if own else ""
    if record.status != "ok":
        return f"{head}: {record.status}: {record.reason or 'no reason given'}"
    parts = []
    if why := unusable(record):
        parts.append(f"not measured: {why} ({read_of(record)})")
    elif record.latency_ms is not None:
        parts.append(units.milliseconds(record.latency_ms))
        if record.latency_low_ms is not None and record.latency_high_ms is not None:
            low, high = units.milliseconds(record.latency_low_ms), units.milliseconds(record.latency_high_ms)
            parts[-1] += f" [{low} to {high}]"
        elif record.samples is not None:
            parts[-1] += f" ({record.samples} timings, too few for an interval)"
        if record.allocator == "kept":
            parts[-1] += " with freed memory kept"
        if record.fast_group_ms is not None:
            parts.append(f"two groups of processes: {GROUPS.value(record)}")
    if record.peak_bytes is not None:
        parts.append(f"peak {units.data(record.peak_bytes)}")
    if record.params is not None:
        parts.append(f"{units.count(record.params)} params")
    if record.macs is not None:
        parts.append(f"{units.scaled(record.macs)} MACs")
    if record.writes_inputs:
        parts.append(f"writes into its input {' and '.join(record.writes_inputs)}")
    if record.nonfinite_share:
        parts.append(f"{share(record.nonfinite_share)} of its values not finite")
    return f"{head}: {', '.join(parts) or 'measured'}"


def machine(environment: Environment) -> str:
    """The hardware: processor, threads used, memory, GPU and what is set on it."""
    parts = [environment.cpu or "unknown processor", f"{environment.threads} of {environment.cores} cores used"]
    if environment.memory_bytes:
        parts.append(f"{units.data(environment.memory_bytes)} memory")
    if environment.gpu:
        known = ", ".join(_gpu(environment))
        parts.append(f"{environment.gpu} ({known})" if known else environment.gpu)
    else:
        parts.append("no GPU")
    return ", ".join(parts)


def _gpu(environment: Environment) -> list[str]:
    """What is known of the GPU; what is as on most of them is not said."""
    memory, limit = environment.gpu_memory_bytes, environment.gpu_power_limit_w
    most, applications = environment.gpu_max_clock_mhz, environment.gpu_application_clock_mhz
    said = (
        units.data(memory) if memory else None,
        f"{limit:g} W" if limit else None,
        f"up to {most:,} MHz" if most else None,
        f"applications at {applications:,} MHz" if applications and applications != most else None,
        f"locked at {environment.gpu_locked_clock}" if environment.gpu_locked_clock else None,
        "MIG" if environment.gpu_mig else None,
        environment.gpu_compute_mode if environment.gpu_compute_mode != "default" else None,
    )
    return [part for part in said if part]


def software(environment: Environment) -> str:
    """What the numbers depend on: afftool, torch and how it was switched, CUDA, compilers, Python, system."""
    named = {
        "afftool": environment.afftool,
        "torch": environment.torch,
        "CUDA": environment.cuda,
        "driver": environment.driver,
        "triton": environment.triton,
        "compiler": environment.compiler,
        "Python": environment.python,
    }
    switched = {
        "TF32 in matrix products": environment.matmul_fp32_precision == "tf32",
        "TF32 in convolutions": environment.conv_fp32_precision == "tf32",
        "cuDNN benchmark": environment.cudnn_benchmark,
        "cuDNN deterministic": environment.cudnn_deterministic,
        "deterministic algorithms": environment.deterministic_algorithms,
    }
    parts = [f"{name} {value}" for name, value in named.items() if value]
    parts += [environment.platform] if environment.platform else []
    return ", ".join([*parts, *(name for name, on in switched.items() if on)])
