"""The machine a run is made on, and its software.

Nothing here imports torch before `read` is called.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from afftool import __version__, free_cores
from afftool.device import gpu_index
from afftool.nvml import Gpu
from afftool.record import Environment


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
        triton=triton_version(),
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


def triton_version() -> str | None:
    """The version of triton under whichever name it is installed; None if it is not."""
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
    for line in text_of("/proc/cpuinfo").splitlines():
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


def available_bytes() -> int | None:
    """What can be allocated now without swapping or being killed for it: the system's own guess, within the
    container's limit (cgroup v2 or v1). None where neither is told.
    """
    told = re.search(r"^MemAvailable:\s+(\d+) kB", text_of("/proc/meminfo"), re.MULTILINE)
    rooms = [int(told[1]) * 1024] if told else []
    for folder, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        words = [text_of(f"{folder}/{name}") for name in (limit, used)]
        if all(word.isdecimal() for word in words):  # "max": not limited
            cached = re.search(r"^inactive_file (\d+)", text_of(f"{folder}/memory.stat"), re.MULTILINE)
            rooms.append(max(0, int(words[0]) - int(words[1]) + int(cached[1] if cached else 0)))
    return min(rooms, default=None)


def _driver() -> str | None:
    """The NVIDIA kernel driver's version, None where there is none."""
    words = text_of("/proc/driver/nvidia/version").split()
    versions = [word for word in words if word[:1].isdigit() and word.count(".") >= 1]
    return versions[0] if versions else None


def text_of(path: str) -> str:
    """What a file of the system's says; empty where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
