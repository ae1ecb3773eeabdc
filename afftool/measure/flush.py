"""Empties the caches, for times as a step has that finds its data in memory and not in the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

LAST_LEVEL_BYTES = 64 << 20
"""Taken for the CPU's last-level cache where the system does not tell its size."""
MOST_BYTES = 1 << 30


def flusher(device: str) -> Callable[[], None]:
    """A function that overwrites twice as many bytes as the last-level cache (L2 on a GPU) holds.

    On a GPU it queues the writes in the current stream. Raises `torch.OutOfMemoryError`.
    """
    size = min(2 * last_level_bytes(device), MOST_BYTES)
    scratch = torch.zeros(size // 4, dtype=torch.int32, device=device)

    def flush() -> None:
        scratch.add_(1)  # reads and writes every line, on all threads

    return flush


def last_level_bytes(device: str) -> int:
    """How large the cache is that `device`'s cores share."""
    if device.startswith("cuda"):
        return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", LAST_LEVEL_BYTES))
    sizes = [_bytes(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(sizes, default=0) or LAST_LEVEL_BYTES


def _bytes(path: Path) -> int:
    try:
        text = path.read_text(encoding="ascii").strip()
        return int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1:], 0)
    except (OSError, ValueError):
        return 0
