"""An environment in two lines: the machine, and the software on it."""

from __future__ import annotations

from afftool import units
from afftool.record import Environment


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
