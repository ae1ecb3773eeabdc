"""What is free on each GPU, and what a training step takes: asked in a process that ends (`python -m`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from afftool.process import serve
from afftool.spec import FusionSpec, HostSpec
from afftool.study.network import build_network

SAFETY = 1.3
"""Room for the evaluation's larger batches and for fragmentation."""


def room(
    host: str, fusion: str, batch: int, size: tuple[int, int], indices: Sequence[int], path: Sequence[str]
) -> dict[str, Any]:
    """Bytes free on each GPU of `indices` beside this process's context there, and those of a step on the first."""
    sys.path[:] = path
    free = [torch.cuda.mem_get_info(index)[0] for index in indices]
    return {"free_bytes": free, "step_bytes": step_bytes(host, fusion, batch, size, f"cuda:{indices[0]}")}


def step_bytes(host: str, fusion: str, batch: int, size: tuple[int, int], device: str) -> int:
    """Bytes that a training of this network needs beside its images: from the peak of one step."""
    network = build_network(HostSpec.parse(host), FusionSpec.parse(fusion), seed=0, size=size).module
    torch.cuda.set_device(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    height, width = size
    images = torch.zeros(batch, 3, height, width, device=device).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = network(images).float().square().mean()
    loss.backward()
    peak = torch.cuda.max_memory_allocated(device) - before
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    return int(SAFETY * (peak + 2 * weights))


if __name__ == "__main__":
    serve({"room": room})
