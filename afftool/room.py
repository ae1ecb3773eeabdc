"""Whether a case fits into memory, told before any of it is taken.

What it needs *at the least* is worked out from its shapes: its inputs, its weights and, where it is ours, its output
and gradients. Nothing that may turn out smaller is in it, so whatever is refused could not have run; what is not may
still fail for its intermediate results, or for its neighbours'. A module of the user's own allocates its weights
itself: they are its own matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from afftool import units
from afftool.allocator import freed_and_held_bytes
from afftool.build import build_on_meta
from afftool.environment import available_bytes
from afftool.errors import AfftoolError, TooLarge
from afftool.spec import MODULE, CaseSpec

SMALLER = "a smaller --batch, --size or --channels needs less"
_BEYOND = 2**63
"""Bytes that no tensor can have."""


@dataclass(frozen=True)
class Need:
    """The least that something needs, in bytes by what for; everything in it is alive at one time."""

    parts: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        """All of it."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        """`41.0 GB (inputs 24.0 GB, weights 17.0 GB)`."""
        told = ", ".join(f"{what} {units.data(nbytes)}" for what, nbytes in self.parts.items() if nbytes)
        return f"{units.data(self.nbytes)} ({told})"


def least_of_case(spec: CaseSpec) -> Need:
    """What the case needs built, with its inputs: nothing is run."""
    return Need({"inputs": _inputs(spec), "weights": sum(_weights(spec))})


def least_of_step(spec: CaseSpec) -> Need:
    """What a step of `afftool.backends.workload` needs beside the case: a copy of it, and what the step leaves."""
    inputs, (trained, buffers) = _inputs(spec), _weights(spec)
    parts = {"a copy of both": inputs + trained + buffers}
    if not spec.own_targets:  # of a module of ours it is known what it gives, and that every weight gets a gradient
        alone = spec.host == MODULE
        parts["output"] = _output(spec) if alone else 0
        if spec.mode == "train":
            parts["gradients"] = trained + (inputs if alone else 0)
            parts["momentum"] = trained
    return Need(parts)


def least_of_both(spec: CaseSpec) -> Need:
    """What a process needs that builds the case and makes steps of it."""
    return Need({**least_of_case(spec).parts, **least_of_step(spec).parts})


def check_room(need: Need, device: str, *, what: str, free: int | None = None, taken: int = 0) -> None:
    """Raise `TooLarge` if `what` needs more than is free on the device, of which `taken` bytes are spoken for.

    `free` is what was free before its neighbours began to take those; now, if it is None.
    """
    free = free_bytes(device) if free is None else free
    if free is not None and need.nbytes > max(0, free - taken):
        beside = f", {units.data(taken)} of which its neighbours need" if taken else ""
        raise TooLarge(f"{what} needs at least {need}, {units.data(free)} are free on {device}{beside}", hint=SMALLER)


def free_bytes(device: str) -> int | None:
    """What this process can still take on a device; None where nobody tells."""
    if device.startswith("cpu"):
        free = available_bytes()
        return None if free is None else free + freed_and_held_bytes()
    if not device.startswith("cuda"):
        return None
    try:
        free = torch.cuda.mem_get_info(device)[0]
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    except (RuntimeError, AssertionError):  # a device that does not answer, or a build without CUDA: whoever runs tells
        return None


def _inputs(spec: CaseSpec) -> int:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return dtype.itemsize * sum(map(math.prod, spec.input_shapes()))


def _output(spec: CaseSpec) -> int:
    """What a fusion of ours gives, which has the shape of its first map."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return dtype.itemsize * math.prod(spec.input_shapes()[0])


def _weights(spec: CaseSpec) -> tuple[int, int]:
    """Parameters and buffers of what is ours, from a build that allocates nothing; none where anything is the user's.

    What is left out of the spec does not change them.
    """
    if spec.own_targets:
        return 0, 0
    return _weights_of(replace(spec, batch=2, size=(1,) * spec.fusion.ndim, mode="infer", device="cpu"))


@lru_cache(maxsize=256)
def _weights_of(spec: CaseSpec) -> tuple[int, int]:
    try:
        module = build_on_meta(spec, settled=False).module
    except (AfftoolError, RuntimeError, TypeError) as error:
        # A size beyond 64 bits is beyond all memory. What cannot be built for another reason, its builder tells.
        return (_BEYOND, 0) if "overflow" in str(error).lower() else (0, 0)
    return _bytes_of(module.parameters()), _bytes_of(module.buffers())


def _bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
