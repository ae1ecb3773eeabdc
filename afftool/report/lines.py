"""In a line or two: a record at the moment it is measured, an environment above a report."""

from __future__ import annotations

from afftool import units
from afftool.record import Environment, Record
from afftool.report.columns import SETTING


def one_line(record: Record) -> str:
    """What was measured and what came out, or why nothing did."""
    name = " ".join(str(part) for part in (record.fusion, record.backend) if part)
    where = [column.value(record) for column in SETTING if column.name != "scenario"]
    head = f"{name} ({', '.join(str(value) for value in where if value is not None)})"
    if record.status != "ok":
        return f"{head}: {record.status}: {record.reason or 'no reason given'}"
    parts = []
    if record.latency_ms is not None:
        parts.append(units.milliseconds(record.latency_ms))
        if record.latency_low_ms is not None and record.latency_high_ms is not None:
            low, high = units.milliseconds(record.latency_low_ms), units.milliseconds(record.latency_high_ms)
            parts[-1] += f" [{low} to {high}]"
    if record.peak_bytes is not None:
        parts.append(f"peak {units.data(record.peak_bytes)}")
    if record.params is not None:
        parts.append(f"{units.count(record.params)} params")
    if record.macs is not None:
        parts.append(f"{units.scaled(record.macs)} MACs")
    return f"{head}: {', '.join(parts) or 'measured'}"


def machine(environment: Environment) -> str:
    """The hardware: processor, threads used, memory, GPU."""
    parts = [environment.cpu or "unknown processor", f"{environment.threads} of {environment.cores} cores used"]
    if environment.memory_bytes:
        parts.append(f"{units.data(environment.memory_bytes)} memory")
    if environment.gpu:
        memory = f" ({units.data(environment.gpu_memory_bytes)})" if environment.gpu_memory_bytes else ""
        parts.append(f"{environment.gpu}{memory}")
    else:
        parts.append("no GPU")
    return ", ".join(parts)


def software(environment: Environment) -> str:
    """What the numbers depend on: afftool, torch, CUDA, compilers, Python, system."""
    named = {
        "afftool": environment.afftool,
        "torch": environment.torch,
        "CUDA": environment.cuda,
        "driver": environment.driver,
        "triton": environment.triton,
        "compiler": environment.compiler,
        "Python": environment.python,
    }
    parts = [f"{name} {value}" for name, value in named.items() if value]
    return ", ".join([*parts, environment.platform] if environment.platform else parts)
