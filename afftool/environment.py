"""The machine a run is made on: what it is, and what a doctor would say about measuring on it.

Nothing here imports torch before `read` or `checks` is called.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from afftool import __version__, free_cores
from afftool.allocator import TO_KEEP, name_of_allocator, toll
from afftool.device import gpu_index
from afftool.nvml import Gpu
from afftool.record import Environment

State = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Check:
    """One line of `doctor`: what was looked at, how it is, what was found, and what to do (empty if nothing)."""

    name: str
    state: State
    found: str
    advice: str = ""


def read(device: str) -> Environment:
    """This machine and its software, as stored with every run on `device`.

    The GPU is that one; the first where the device names none of them (`cpu`, and `cuda` for all of them), since what
    was stored for these always named it.
    """
    import torch

    cuda = torch.cuda.is_available()
    properties = torch.cuda.get_device_properties(gpu_index(device)) if cuda else None
    return Environment(
        afftool=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        triton=_triton_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_model(),
        cores=cores(),
        threads=torch.get_num_threads(),
        memory_bytes=_memory_bytes(),
        gpu=properties.name if properties else None,
        gpu_memory_bytes=properties.total_memory if properties else None,
        driver=_driver(),
        compiler=compiler_version(),
        **(_switches() if cuda else {}),
        **(_settings(device, properties.name) if properties else {}),
    )


def checks() -> Iterator[Check]:
    """What this machine can measure, what is missing, and what to do about it."""
    for check in (_check_torch, _check_compiler, _check_cuda, _check_triton, _check_nvml, _check_threads):
        yield check()
    for disturbance in (_check_allocator, _check_load, _check_governor, _check_valgrind):
        yield disturbance()


@functools.cache
def cpp_compiler() -> str | None:
    """The C++ compiler that inductor would use: CXX if it is set, else g++ or clang++; None if there is none."""
    named = os.environ.get("CXX")
    for candidate in [named] if named else ["g++", "clang++", *(["cl"] if sys.platform == "win32" else [])]:
        if candidate and (found := shutil.which(candidate)):
            return found
    return None


@functools.cache
def compiler_version() -> str | None:
    """The first line of the C++ compiler's `--version`, None if there is none."""
    compiler = cpp_compiler()
    if compiler is None:
        return None
    try:
        output = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return output.splitlines()[0] if output else None


def has_triton() -> bool:
    """Whether triton, which inductor needs on CUDA, is installed."""
    return importlib.util.find_spec("triton") is not None


def cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    return len(free_cores.allowed() or ()) or os.cpu_count() or 1


def load_per_core() -> float | None:
    """How many processes wanted a core in the last minute, per core; None where the system does not tell."""
    try:
        return os.getloadavg()[0] / cores()
    except (OSError, AttributeError):
        return None


def _check_torch() -> Check:
    import torch

    old = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 9)
    return Check("torch", "warn" if old else "ok", torch.__version__, "afftool needs torch 2.9 or newer" if old else "")


def _check_compiler() -> Check:
    version = compiler_version()
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

    if version := _triton_version():
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

    threads, room = torch.get_num_threads(), cores()
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
    load, room = load_per_core(), free_cores.room()
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
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if not governor:
        return Check("CPU clock", "ok", "the governor is not visible here (a virtual machine, or no Linux)")
    if governor == "performance":
        return Check("CPU clock", "ok", governor)
    return Check("CPU clock", "warn", f"governor {governor}", "steadier: cpupower frequency-set -g performance")


def _check_valgrind() -> Check:
    if found := shutil.which("valgrind"):
        return Check("valgrind", "ok", found)
    return Check("valgrind", "missing", "not found", "`afftool check --metric instructions` needs it (Linux)")


def _triton_version() -> str | None:
    if not has_triton():
        return None
    from importlib import metadata

    for package in ("triton", "pytorch-triton", "triton-windows"):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return None


@functools.cache
def _cpu_model() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        if line.lower().startswith(("model name", "hardware")):
            return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        try:
            told = subprocess.run(
                ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, timeout=5, check=False
            )
            return told.stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            pass
    return platform.processor() or platform.machine()


def _settings(device: str, name: str) -> dict[str, Any]:
    """What is set on the GPU, as fields of the environment; nothing where NVML does not tell."""
    if " MIG " in name:  # as CUDA calls a slice of a GPU, of which NVML tells nothing
        return {"gpu_mig": True}
    gpu = Gpu.of(f"cuda:{gpu_index(device)}")
    if gpu is None:
        return {}
    return {
        "gpu_power_limit_w": gpu.power_limit_w,
        "gpu_max_clock_mhz": gpu.max_clock_mhz,
        "gpu_application_clock_mhz": gpu.application_clock_mhz,
        "gpu_mig": gpu.mig,
        "gpu_compute_mode": gpu.compute_mode,
    }


def _switches() -> dict[str, Any]:
    """Torch's switches for arithmetic on a GPU in this process, as fields of its environment."""
    import torch

    try:
        matmul: str | None = torch.get_float32_matmul_precision()
    except RuntimeError:  # the newer switches were used, and what this one means is no longer one thing
        matmul = None
    cudnn = torch.backends.cudnn
    matmul_precision, conv_precision = float32_precisions()
    return {
        "float32_matmul_precision": matmul,
        "matmul_fp32_precision": matmul_precision,
        "conv_fp32_precision": conv_precision,
        "cudnn_benchmark": cudnn.benchmark,
        "cudnn_deterministic": cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def float32_precisions() -> tuple[str, str]:
    """What float32 is rounded to on CUDA in matrix products and in convolutions: `ieee`, not at all, or `tf32`.

    Read from torch's newer `fp32_precision`, which also tells what was set by the older `allow_tf32`; the other way
    round, torch raises.
    """
    from torch.backends import cuda, cudnn

    return _ieee_if_none(cuda.matmul.fp32_precision), _ieee_if_none(cudnn.conv.fp32_precision)  # type: ignore[attr-defined]


def _ieee_if_none(precision: str) -> str:
    """Nobody asked for anything less than float32."""
    return "ieee" if precision == "none" else precision


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _driver() -> str | None:
    """The NVIDIA kernel driver's version, None where there is none."""
    words = _text("/proc/driver/nvidia/version").split()
    versions = [word for word in words if word[:1].isdigit() and word.count(".") >= 1]
    return versions[0] if versions else None


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
