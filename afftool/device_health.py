"""Whether a device still answers after something went wrong on it, and giving back what a failed attempt held."""

from __future__ import annotations

import contextlib
import gc
from dataclasses import replace

import torch

from afftool.failure import Failure, message_of


def answers(device: str) -> bool:
    """Whether `device` can still be used by this process; always so for the CPU.

    After an illegal access or a failed assertion in a kernel, every later call to the device fails in this process,
    whoever makes it: only a fresh one helps. A device that is merely out of memory answers.
    """
    return trouble_with(device) is None


def trouble_with(device: str) -> str | None:
    """What the device itself says of why it no longer answers, in a line; None while it does."""
    if not device.startswith("cuda"):
        return None
    try:
        torch.cuda.synchronize(device)  # errors of kernels show when they are waited for
        torch.empty(1, device=device)
    except torch.OutOfMemoryError:
        return None
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch's word for a build without CUDA
        return (message_of(error).splitlines() or ["no message"])[0]
    return None


def failure_on(device: str, error: BaseException) -> Failure:
    """What `error` says, and what the device does if it no longer answers.

    A kernel fails later than it is called, so the first to meet that may be a library that knows no cause.
    """
    failure, said = Failure.of(error), trouble_with(device)
    if said is None or said in failure.message:
        return failure
    first = (failure.message.splitlines() or ["no message"])[0]
    return replace(failure, message=f"{first}; {device} no longer answers: {said}")


def free_memory() -> None:
    """Give back what nothing holds any more: after an `except` block, for in it the exception still holds its frames.

    Opens no CUDA context where there is none, and does not raise: a device that no longer answers has nothing to give.
    """
    gc.collect()
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()
