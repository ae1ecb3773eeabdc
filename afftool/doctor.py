"""What a doctor would say about measuring on this machine: what it can measure, and what is missing.

Nothing here imports torch before `checks` is called.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from afftool import environment, free_cores
from afftool.allocator import TO_KEEP, name_of_allocator, toll

State = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Check:
    """One line of `doctor`: what was looked at, how it is, what was found, and what to do (empty if nothing)."""

    name: str
    state: State
    found: str
    advice: str = ""


def checks() -> Iterator[Check]:
    """What this machine can measure, what is missing, and what to do about it."""
    for check in (_check_torch, _check_compiler, _check_cuda, _check_triton, _check_nvml, _check_threads):
        yield check()
    for disturbance in (_check_allocator, _check_load, _check_governor, _check_valgrind):
        yield disturbance()


def _check_torch() -> Check:
    import torch

    old = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 9)
    return Check("torch", "warn" if old else "ok", torch.__version__, "afftool needs torch 2.9 or newer" if old else "")


def _check_compiler() -> Check:
    version = environment.compiler_version()
    if version:
        return Check("C++ compiler", "ok", version)
    return Check(
        "C++ compiler",
        "missing",
        "none found" + (f" (CXX={os.environ['CXX']})" if "CXX" in os.environ else ""),
        "compile and compile-max-autotune need one on the CPU: install g++ or clang++, or name one in CXX",
    )


def _check_cuda() -> Check:
    import torch

    if torch.cuda.is_available():
        kinds = Counter(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        found = ", ".join(f"{count} x {name}" for name, count in kinds.items())
        return Check("CUDA", "ok", f"{torch.version.cuda}, {found}")
    if torch.version.cuda:
        return Check(
            "CUDA", "warn", "torch was built for it, but no GPU is visible", "check the driver with nvidia-smi"
        )
    return Check(
        "CUDA",
        "missing",
        "this torch has no CUDA",
        "compile-reduce-overhead and cudagraph are skipped; with an NVIDIA GPU, install a CUDA build of torch",
    )


def _check_triton() -> Check:
    import torch

    if version := environment.triton_version():
        return Check("triton", "ok", version)
    needed = torch.cuda.is_available()
    return Check(
        "triton",
        "missing" if needed else "ok",
        "not installed" + ("" if needed else ", and not needed without a GPU"),
        "pip install triton: every compile backend needs it on CUDA" if needed else "",
    )


def _check_nvml() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("NVML", "ok", "not needed without a GPU")
    if importlib.util.find_spec("pynvml"):
        return Check("NVML", "ok", "clocks, throttling, energy and other processes on the GPU are watched")
    return Check(
        "NVML",
        "missing",
        "no Python binding",
        "pip install nvidia-ml-py to see throttled clocks, other processes and energy",
    )


def _check_threads() -> Check:
    import torch

    threads, room = torch.get_num_threads(), environment.cores()
    found = f"{threads} of {room} cores used by torch"
    if threads > room:
        return Check("threads", "warn", found, "more threads than cores: set OMP_NUM_THREADS or --threads")
    if threads < room:
        return Check("threads", "ok", found, "set OMP_NUM_THREADS or --threads to use more")
    return Check("threads", "ok", found)


def _check_allocator() -> Check:
    name = name_of_allocator()
    paid = toll()
    if paid is None:
        return Check("allocator", "ok", f"{name}; whether freed memory costs anything again is not known here")
    ms, mib = 1e3 * (paid.system_s - paid.kept_s), paid.written_bytes >> 20
    found = (
        f"{name}; {mib} MiB taken, written and freed take {paid.times:.2g} times as long as with freed memory kept, "
        f"{ms:.2g} ms and {paid.system_faults:,} page faults more"
    )
    if paid.times < 1.1:
        return Check("allocator", "ok", found)
    return Check("allocator", "ok", found, f"`bench --allocator both` tells whom it slows; {TO_KEEP}")


def _check_load() -> Check:
    """What runs now beside this process; the load is that of the last minute, of work that may be over."""
    load, room = environment.load_per_core(), free_cores.room()
    now = free_cores.busy_in_words(room) if room and room.taken else ""
    minute = f"{load:.1f} per core in the last minute" if load is not None else ""
    found = "; ".join(part for part in (now, minute) if part) or "not known on this system"
    if now:
        return Check(
            "load", "warn", found, "times will spread: stop it, or let bench use the free cores only (its default)"
        )
    if load is not None and load > 0.5:
        return Check("load", "warn", found, "other work was running, and times spread beside it: stop it")
    return Check("load", "ok", found)


def _check_governor() -> Check:
    governor = environment.text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if not governor:
        return Check("CPU clock", "ok", "the governor is not visible here (a virtual machine, or no Linux)")
    if governor == "performance":
        return Check("CPU clock", "ok", governor)
    return Check("CPU clock", "warn", f"governor {governor}", "steadier: cpupower frequency-set -g performance")


def _check_valgrind() -> Check:
    if found := shutil.which("valgrind"):
        return Check("valgrind", "ok", found)
    return Check("valgrind", "missing", "not found", "`afftool check --metric instructions` needs it (Linux)")
