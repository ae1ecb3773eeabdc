"""Energy of a step through NVML's total energy counter, where there is one.

The counter (millijoules since the driver was loaded; Volta and newer) is refreshed every few tens of milliseconds, so
steps are repeated until the loop spans many refreshes, and from tick to tick: a second leaves an error of a few
percent at the most. It counts the whole board, idle power included, and other processes' work on it as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from afftool.errors import Unavailable
from afftool.nvml import Gpu

if TYPE_CHECKING:
    from afftool.backends import Prepared
    from afftool.build import Case

Millijoules = Callable[[], int]
"""Reads a counter of energy."""


def measure(prepared: Prepared, case: Case) -> dict[str, float]:
    """The energy of a step, as a field of the case's record. Raises `Unavailable` where nothing counts it."""
    step = joules(prepared.run, case.spec.device)
    if (restore := prepared.restore) is None:
        return {"energy_j": step}

    def restored(times: int) -> None:
        with prepared.mode():
            for _ in range(times):
                restore()

    return {"energy_j": max(0.0, step - joules(restored, case.spec.device))}


def joules(run: Callable[[int], None], device: str, *, seconds: float = 1.0) -> float:
    """Joules that one step of `run(steps)` takes on `device`.

    `run` need not wait for the device. It takes `seconds` or a little longer. Raises `Unavailable` where nothing
    counts them.
    """
    counter = find_counter(device)

    def finished(steps: int) -> None:
        run(steps)
        torch.cuda.synchronize(device)

    found = joules_per_step(finished, counter, seconds=seconds)
    if found is None:
        raise Unavailable("NVML's energy counter stood still while the steps ran", hint="leave energy out here")
    return found


def joules_per_step(
    run: Callable[[int], None], counter: Millijoules, *, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float | None:
    """Joules a step by `counter` over a loop of at least `seconds`; None if the counter did not move.

    `run(steps)` returns when the steps are done. The loop starts and ends on a tick of the counter if that comes
    soon, by stepping on until it moves.
    """
    run(1)
    start_s = clock()
    run(1)
    once = max(clock() - start_s, 1e-9)
    block = max(1, round(BLOCK_S / once))
    first, _ = _run_to_tick(run, counter, block, clock)
    steps, begun = 0, clock()
    while clock() - begun < seconds:
        run(block)
        steps += block
    last, extra = _run_to_tick(run, counter, block, clock)
    return (last - first) / 1000 / (steps + extra) if last > first else None


BLOCK_S = 0.005
"""Work done between two looks at the clock and the counter."""
LONGEST_TICK_S = 0.2


def _run_to_tick(
    run: Callable[[int], None], counter: Millijoules, block: int, clock: Callable[[], float]
) -> tuple[int, int]:
    """Run until the counter moves, or for longer than it ever takes; its reading and the steps made."""
    before, begun, steps = counter(), clock(), 0
    now = before
    while now == before and clock() - begun < LONGEST_TICK_S:
        run(block)
        steps += block
        now = counter()
    return now, steps


def find_counter(device: str) -> Millijoules:
    """The energy counter of a CUDA device. Raises `Unavailable`: no GPU, no NVML, no permission, no such counter."""
    if not device.startswith("cuda"):
        raise Unavailable(f"nothing counts energy on the {device.upper()}", hint="on an NVIDIA GPU, NVML does")
    gpu = Gpu.open(device)
    gpu.energy_mj()
    return gpu.energy_mj
