"""How many cells share each GPU: as many as its memory holds and a few at most.

A step of the largest variant tells, in a process that ends (`gpu_room`): the one that starts the workers opens no CUDA
context, which would hold memory on every GPU all the while and be refused one that takes a single process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from afftool.device import count_gpus, gpu_index
from afftool.errors import NothingMeasured
from afftool.failure import FailedError
from afftool.process import Child
from afftool.study.plan import Plan

WORKERS = 4
"""Cells on one GPU unless more are asked for: beyond that they take turns more than they share."""
CONTEXT_BYTES = 800 * 2**20
"""What a CUDA context and its libraries take before the first tensor."""


def devices(plan: Plan, device: str, workers: int | None, cores: int) -> tuple[str, ...]:
    """One device a worker: on the GPU named, or on all of them for plain `cuda`; `workers` overrides the number.

    Raises `NothingMeasured` if the number is not given and a cell's memory cannot be measured.
    """
    indices = [gpu_index(device)] if ":" in device else list(range(count_gpus()))
    if workers is not None:
        return tuple(f"cuda:{indices[number % len(indices)]}" for number in range(workers))
    free_bytes, cell_bytes = measured(plan, indices)
    return tuple(f"cuda:{indices[turn]}" for turn in share(free_bytes, cell_bytes, cores))


def share(free_bytes: Sequence[int], cell_bytes: int, cores: int) -> tuple[int, ...]:
    """The position of each worker's GPU: in turns, as many on each as fit, at least one, in all at most one a core."""
    fitting = [int(0.9 * free) // (cell_bytes + CONTEXT_BYTES) for free in free_bytes]
    each = [min(max(1, number), WORKERS) for number in fitting]
    # Round by round over the GPUs, so that a limit on cores cuts the last round and not the last GPU.
    turns = ((turn, gpu) for turn in range(max(each)) for gpu in range(len(each)) if turn < each[gpu])
    return tuple(gpu for _, gpu in turns)[: max(1, cores)]


def measured(plan: Plan, indices: Sequence[int]) -> tuple[list[int], int]:
    """Free bytes of each GPU, and the bytes that a cell of the largest variant needs with its training images.

    Raises `NothingMeasured`.
    """
    largest = max(plan.study.variants, key=lambda variant: plan.facts[variant.name].params)
    child = Child("afftool.study.engines.gpu_room")
    try:
        found = child.ask(
            "room",
            host=plan.facts[largest.name].host,
            fusion=largest.fusion_spec.text,
            batch=plan.study.recipe_of(largest).batch,
            size=plan.data.size,
            indices=list(indices),
            path=sys.path,
        )
    except FailedError as error:
        raise NothingMeasured(
            f"how much memory a cell of {largest.name} takes could not be measured on cuda:{indices[0]}: {error}",
            hint="--workers N trains N cells at a time without asking",
        ) from error
    finally:
        child.stop()
    return found["free_bytes"], found["step_bytes"] + plan.data.train_images.nbytes + plan.data.train_targets.nbytes
