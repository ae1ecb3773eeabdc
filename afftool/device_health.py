"""Whether a device still answers after something went wrong on it, and giving back what a failed attempt held."""

from __future__ import annotations

import contextlib
import gc

import torch


def answers(device: str) -> bool:
    """Whether `device` can still be used by this process; always so for the CPU.

    After an illegal access or a failed assertion in a kernel, every later call to the device fails in this process,
    whoever makes it: only a fresh one helps. A device that is merely out of memory answers.
    """
    if not device.startswith("cuda"):
        return True
    try:
        torch.cuda.synchronize(device)  # errors of kernels show when they are waited for
        torch.empty(1, device=device)
    except torch.OutOfMemoryError:
        return True
    except (RuntimeError, AssertionError):  # AssertionError: torch's word for a build without CUDA
        return False
    return True


def free_memory() -> None:
    """Give back what nothing holds any more: after an `except` block, for in it the exception still holds its frames.

    Opens no CUDA context where there is none, and does not raise: a device that no longer answers has nothing to give.
    """
    gc.collect()
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()
