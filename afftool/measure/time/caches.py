"""The caches, emptied: a step takes the time it has where it finds its data in memory and not in them.

A GPU is then idle as well, so that the step's first launch is part of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from afftool.backends.getting_ready import wait

LAST_LEVEL_BYTES = 64 << 20
"""Taken for the last-level cache where the system does not tell its size."""
MOST_BYTES = 512 << 20


def flusher(device: str) -> Callable[[], None]:
    """A function that overwrites twice as many bytes as the last-level caches (L2 on a GPU) hold.

    It returns when that is done, on a GPU too: while the writes are only queued, the host runs ahead and a step's
    launches hide behind them. Raises `torch.OutOfMemoryError`.
    """
    size = 2 * last_level_bytes(device)
    scratch = torch.zeros(size // 4, dtype=torch.int32, device=device)

    def flush() -> None:
        scratch.add_(1)  # reads and writes every line, on all threads
        wait(device)

    return flush


def last_level_bytes(device: str, cpus: Path = Path("/sys/devices/system/cpu")) -> int:
    """Bytes of the last-level caches of `device` (L2 on a GPU), those of all sockets together; at most 512 MiB."""
    if device.startswith("cuda"):
        told = int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0))
    else:
        told = _last_level_of(cpus)
    return min(told, MOST_BYTES) or LAST_LEVEL_BYTES


def _last_level_of(cpus: Path) -> int:
    """What the system tells of the caches of its processors: a cache that many share is counted once."""
    caches: dict[tuple[int, str], int] = {}
    for index in cpus.glob("cpu[0-9]*/cache/index[0-9]"):
        try:
            level = int((index / "level").read_text(encoding="ascii"))
            shared = (index / "shared_cpu_list").read_text(encoding="ascii").strip()
            caches[level, shared] = _bytes((index / "size").read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            continue
    last = max((level for level, _ in caches), default=0)
    return sum(size for (level, _), size in caches.items() if level == last)


def _bytes(text: str) -> int:
    return int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1:], 0)
