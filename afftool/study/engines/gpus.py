"""How many cells share each GPU: as many as its memory holds, found by a training step of the largest variant."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from afftool.spec import HostSpec
from afftool.study.network import build_network
from afftool.study.plan import Plan

CONTEXT_BYTES = 800 * 2**20
"""What a CUDA context and its libraries take before the first tensor."""
SAFETY = 1.3
"""Room for the evaluation's larger batches and for fragmentation."""


def devices(plan: Plan, device: str, workers: int | None, cores: int) -> tuple[str, ...]:
    """One device a worker: on the GPU named, or on all of them for plain `cuda`; `workers` overrides the number."""
    indices = [int(device.partition(":")[2])] if ":" in device else list(range(torch.cuda.device_count()))
    needed = step_bytes(plan, f"cuda:{indices[0]}")
    free = [torch.cuda.mem_get_info(index)[0] for index in indices]
    shared = [f"cuda:{indices[turn]}" for turn in share(free, needed, cores)]
    if workers is None:
        return tuple(shared)
    return tuple(f"cuda:{indices[number % len(indices)]}" for number in range(workers))


def share(free_bytes: Sequence[int], cell_bytes: int, cores: int) -> tuple[int, ...]:
    """The position of each worker's GPU: in turns, as many on each as fit, at least one, in all at most one a core."""
    each = [max(1, int(0.9 * free) // (cell_bytes + CONTEXT_BYTES)) for free in free_bytes]
    turns = ((turn, gpu) for turn in range(max(each)) for gpu in range(len(each)) if turn < each[gpu])
    return tuple(gpu for _, gpu in turns)[: max(1, cores)]


def step_bytes(plan: Plan, device: str) -> int:
    """Bytes that one cell needs: the training images, and the peak of a step of the largest variant."""
    largest = max(plan.study.variants, key=lambda variant: plan.facts[variant.name].params)
    network = build_network(HostSpec.parse(plan.facts[largest.name].host), largest.fusion_spec, seed=0).module
    batch = plan.study.recipe_of(largest).batch
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    height, width = plan.data.size
    images = torch.zeros(batch, 3, height, width, device=device).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = network(images).float().square().mean()
    loss.backward()
    peak = torch.cuda.max_memory_allocated(device) - before
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    del network, images, loss
    torch.cuda.empty_cache()
    return int(SAFETY * (peak + 2 * weights)) + plan.data.train_images.nbytes + plan.data.train_targets.nbytes
