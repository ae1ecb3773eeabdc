"""Keeps the C library from giving freed activation maps back to the system while CPU times are taken.

glibc returns large freed blocks at once, or the end of its heap when it grows long, and the next step faults the same
pages in again. Which of it happens depends on everything the process allocated before, so one module can take one
time or ten times that in the same process. With the memory kept, a step costs what it costs in a loop that
runs long. The setting holds for the whole process, and cannot be taken back.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from typing import Literal

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1

Allocator = Literal["kept", "system"]


@functools.cache
def keep_freed_memory() -> Allocator:
    """Have this process keep what it frees: `kept` if it does from now on, `system` where that cannot be set.

    It can be with glibc on Linux, unless another malloc is preloaded.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or "malloc" in os.environ.get("LD_PRELOAD", ""):
        return "system"
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return "system"
    kept = [mallopt(M_TRIM_THRESHOLD, NEVER), mallopt(M_MMAP_MAX, 0)]
    return "kept" if all(kept) else "system"
