"""The first steps of a case under a backend: how long they take, and what was compiled in them."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from afftool.backends import Preparation
from afftool.errors import Rejected

MOST_COMPILING_STEPS = 4
"""Steps in a row that may compile something: inputs never change, so what compiles longer does so for ever."""


def seconds(run: Callable[[int], None], device: str) -> float:
    """The wall time of one step, the device waited for before and after."""
    wait(device)
    start = time.perf_counter()
    run(1)
    wait(device)
    return time.perf_counter() - start


def first_steps(
    run: Callable[[int], None],
    device: str,
    compilations: Callable[[], int] | None = None,
    *,
    captures: bool = False,
) -> Preparation:
    """Run until a step compiles nothing; `compilations` counts them, None where there is no compiler.

    Where the compiled code `captures` CUDA graphs, it does so in the first step after the compilation. Raises
    `Rejected` where every step compiles.
    """
    if compilations is None:
        return Preparation(first_call_s=seconds(run, device))
    compiling = [seconds(run, device)]
    first = count = compilations()
    following = seconds(run, device)
    while compilations() > count:
        compiling.append(following)
        if len(compiling) > MOST_COMPILING_STEPS:
            raise Rejected(
                "it is compiled again in every step, though its inputs stay the same",
                hint="its forward depends on something that changes from call to call; TORCH_LOGS=recompiles shows it",
            )
        count = compilations()
        following = seconds(run, device)
    steady = seconds(run, device)
    return Preparation(
        first_call_s=compiling[0],
        compile_s=sum(max(0.0, taken - steady) for taken in compiling),
        capture_s=max(0.0, following - steady) if captures else None,
        recompiles=compilations() - first,
    )


def wait(device: str) -> None:
    """Wait until the device has done all it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
