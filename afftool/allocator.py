"""The C library's allocator: what becomes of freed memory in a process, whether it can be kept, what that is worth.

glibc returns large freed blocks to the system at once, or the end of its heap when it grows long, and the next step
faults the same pages in again, zeroed. Which of it happens depends on everything the process allocated before, so one
module can take one time or several times that in two processes that do the same. With the memory kept, a step costs
what it costs where no page is faulted in twice. Other allocators (jemalloc, tcmalloc, mimalloc) keep more by default.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afftool.received import json_of

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1
KEEPING = {"MALLOC_TRIM_THRESHOLD_": str(NEVER), "MALLOC_MMAP_MAX_": "0"}
"""Environment variables of a process that keeps what it frees, where its malloc is glibc's."""
TO_KEEP = f"set {' and '.join(map('='.join, KEEPING.items()))} before it starts, or preload jemalloc"
"""What a user does to have freed memory kept in a process."""

OTHERS = ("jemalloc", "tcmalloc", "mimalloc")
_TUNED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_ARENA_MAX")


def name_of_allocator(variables: Mapping[str, str] = os.environ, maps: Path = Path("/proc/self/maps")) -> str:
    """Whose allocator this process has, and so its children with these `variables`.

    `system` is the C library's as it comes, `tuned` that with settings from the environment, `kept` where these keep
    everything that is freed; else the name of the malloc that was preloaded.
    """
    try:
        loaded = maps.read_text(encoding="utf-8", errors="replace")
    except OSError:
        loaded = ""
    loaded += variables.get("LD_PRELOAD", "") + variables.get("DYLD_INSERT_LIBRARIES", "")
    for name in OTHERS:
        if f"lib{name}" in loaded:
            return name
    if "malloc" in variables.get("LD_PRELOAD", ""):
        return Path(variables["LD_PRELOAD"].split()[0].split(":")[0]).name.partition(".")[0]
    if variables.get("MALLOC_MMAP_MAX_") == "0" and _is_large(variables.get("MALLOC_TRIM_THRESHOLD_", "")):
        return "kept"
    if any(variables.get(setting) for setting in _TUNED) or "glibc.malloc" in variables.get("GLIBC_TUNABLES", ""):
        return "tuned"
    return "system"


def _is_large(bytes_: str) -> bool:
    return bytes_.isdecimal() and int(bytes_) >= 1 << 30


@functools.cache
def keep_freed_memory() -> str:
    """Have this process keep what it frees, for good: `kept` if it does from now on, else whose allocator it has.

    It can be with glibc on Linux, unless another malloc is preloaded.
    """
    found = name_of_allocator()
    if found not in ("system", "tuned") or sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return found
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return found
    kept = [mallopt(M_TRIM_THRESHOLD, NEVER), mallopt(M_MMAP_MAX, 0)]
    return "kept" if all(kept) else found


class _MallInfo2(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names.split())


def freed_and_held_bytes() -> int:
    """Bytes that this process has freed and its malloc still holds, to be given again; 0 where it does not tell."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2  # glibc's, from 2.33
    except (OSError, AttributeError, TypeError):
        return 0
    mallinfo2.restype = _MallInfo2
    return int(mallinfo2().fordblks)


def page_faults() -> int | None:
    """Pages that were given to this process so far, all of its threads together; None where the system tells none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@dataclass(frozen=True)
class Toll:
    """What it costs here to have freed memory taken back: seconds and page faults of a probe, and with it kept.

    The probe takes and frees blocks of a few MiB, as a step of a network does with its maps, and writes each page once.
    """

    allocator: str
    system_s: float
    system_faults: int
    kept_s: float
    kept_faults: int
    written_bytes: int

    @property
    def times(self) -> float:
        """How many times longer it takes than with the memory kept."""
        return self.system_s / self.kept_s if self.kept_s else 1.0


def toll() -> Toll | None:
    """Ask a fresh process, which takes a quarter of a second. None where there is no telling (no Linux, no glibc)."""
    told = subprocess.run([sys.executable, "-P", "-m", __name__], capture_output=True, text=True, check=False).stdout
    try:
        return Toll(**json_of(told))
    except (ValueError, TypeError):
        return None


_BLOCK_BYTES, _BLOCKS, _STEPS = 6 << 20, 4, 12


def _probe() -> dict[str, Any]:
    import time

    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]

    def step() -> None:
        blocks = [libc.malloc(_BLOCK_BYTES) for _ in range(_BLOCKS)]
        for block in blocks:
            ctypes.memset(block, 1, _BLOCK_BYTES)
        for block in blocks:
            libc.free(block)

    def steps() -> tuple[float, int]:
        step()
        taken_s, faults = [], page_faults() or 0
        for _ in range(_STEPS):
            start = time.perf_counter()
            step()
            taken_s.append(time.perf_counter() - start)
        return sorted(taken_s)[_STEPS // 2], ((page_faults() or 0) - faults) // _STEPS

    allocator = name_of_allocator()
    system_s, system_faults = steps()
    if keep_freed_memory() == allocator:
        return {}
    kept_s, kept_faults = steps()
    return {
        "allocator": allocator,
        "system_s": system_s,
        "system_faults": system_faults,
        "kept_s": kept_s,
        "kept_faults": kept_faults,
        "written_bytes": _BLOCK_BYTES * _BLOCKS,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_probe()))
