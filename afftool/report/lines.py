"""In a line or two: a record at the moment it is measured, an environment above a report."""

from __future__ import annotations

from afftool import units
from afftool.record import Environment, Record
from afftool.report.columns import SETTING, share


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
