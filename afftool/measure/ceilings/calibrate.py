"""Measure this machine's ceilings: bandwidth by size, matrix rate by dtype, the cost of launching one operator.

A ceiling is the best of many tries, so a busy moment cannot lower it much. It takes well under 20 seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import torch
from torch.nn import functional as F

from afftool.measure.ceilings.roofline import BYTES as DTYPES
from afftool.measure.ceilings.roofline import Ceilings
from afftool.measure.time.caches import last_level_bytes

MEBI = 1 << 20
WORKING_SETS = (MEBI // 4, MEBI, 4 * MEBI)
"""Bytes a bandwidth is measured at, besides a half, one and two last-level caches and `out_of_cache`."""
SMALL, LARGE = 256, 8192
"""The least and the largest side of a square matrix that is tried."""


def calibrate(
    device: str = "cpu", *, seconds_each: float = 0.1, clock: Callable[[], float] = time.perf_counter
) -> Ceilings:
    """Measure the ceilings of `device` with the threads torch has now, and on the CPU with one alone.

    `seconds_each` is spent on each of some 30 kernels, a call at the least. Raises `torch.OutOfMemoryError` on
    a device that is full.
    """
    target = torch.device(device)
    timer = _Timer(target, seconds_each, clock)
    with torch.inference_mode(), _on(target):
        return Ceilings(
            device=device,
            bandwidths=tuple(_bandwidths(target, timer)),
            flops_per_s={name: _matrix_rate(target, getattr(torch, name), timer) for name in DTYPES},
            launch_s=_launch_seconds(target, timer),
            graph_launch_s=_graph_launch_seconds(target, timer) if target.type == "cuda" else None,
            taken=datetime.now(UTC).isoformat(timespec="seconds"),
        )


class _Timer:
    """The shortest time of a callable, each sample long enough for the clock.

    On the CPU the better of one thread and all: threads that wait for each other are slower than one on small
    work, and anywhere on a busy machine.
    """

    SAMPLE_S = 1e-3

    def __init__(self, device: torch.device, seconds: float, clock: Callable[[], float]) -> None:
        self._device = device
        self._seconds = seconds
        self._clock = clock

    def best(self, run: Callable[[], object]) -> float:
        """Seconds that one call takes at the best."""
        threads = torch.get_num_threads()
        if self._device.type != "cpu" or threads == 1:
            return self._best(run)
        try:
            torch.set_num_threads(1)
            alone = self._best(run)
        finally:
            torch.set_num_threads(threads)
        return min(alone, self._best(run))

    def _best(self, run: Callable[[], object]) -> float:
        self._sample(run, 1)
        once = max(self._sample(run, 1), 1e-9)
        calls = max(1, round(self.SAMPLE_S / once))
        best, spent = once, 0.0
        while spent < self._seconds:
            taken = self._sample(run, calls)
            best = min(best, taken / calls)
            spent += max(taken, 1e-9)
        return best

    def _sample(self, run: Callable[[], object], calls: int) -> float:
        self._wait()
        start = self._clock()
        for _ in range(calls):
            run()
        self._wait()
        return self._clock() - start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _bandwidths(device: torch.device, timer: _Timer) -> Iterator[tuple[int, float]]:
    """Pairs of working set and the best bandwidth of a copy, a triad (as STREAM's) and a sum, in that set."""
    cache = last_level_bytes(str(device))
    for size in sorted({*WORKING_SETS, cache // 2, cache, 2 * cache, out_of_cache(device)}):
        yield size, max(_copy(device, size, timer), _triad(device, size, timer), _sum(device, size, timer))


def _copy(device: torch.device, size: int, timer: _Timer) -> float:
    a, b = torch.ones(2, size // 8, device=device).unbind()
    return 2 * a.nbytes / timer.best(lambda: a.copy_(b))


def _triad(device: torch.device, size: int, timer: _Timer) -> float:
    a, b, c = torch.ones(3, size // 12, device=device).unbind()
    return 3 * a.nbytes / timer.best(lambda: torch.add(b, c, alpha=3.0, out=a))


def _sum(device: torch.device, size: int, timer: _Timer) -> float:
    a = torch.ones(size // 4, device=device)
    return a.nbytes / timer.best(lambda: a.sum())


def out_of_cache(device: torch.device) -> int:
    """Bytes far beyond the last-level cache of `device`: four times it, and at least 256 MiB."""
    return max(256 * MEBI, 4 * last_level_bytes(str(device)))


def _matrix_rate(device: torch.device, dtype: torch.dtype, timer: _Timer) -> float:
    """FLOP/s of the better of a matrix product and a 1x1 convolution, at the largest size that is affordable.

    Both, because they go through different libraries with different rules for what they round to.
    """
    rate, side = 0.0, SMALL
    while side <= LARGE:
        a, b = torch.ones(2, side, side, device=device, dtype=dtype).unbind()
        out = torch.empty(side, side, device=device, dtype=dtype)
        flops = 2 * side**3
        rate = max(rate, flops / timer.best(lambda a=a, b=b, out=out: torch.mm(a, b, out=out)))  # type: ignore[misc]
        image, weight = a.view(1, side, -1, 16), b.view(side, side, 1, 1)
        rate = max(rate, flops / timer.best(lambda x=image, w=weight: F.conv2d(x, w)))  # type: ignore[misc]
        side *= 4 if device.type == "cuda" else 2
        if 2 * side**3 / rate > 0.1:
            break
    return rate


def _launch_seconds(device: torch.device, timer: _Timer) -> float:
    a, b = torch.ones(2, 16, device=device).unbind()

    def many() -> None:
        for _ in range(100):
            a.mul_(b)

    return timer.best(many) / 100


def _graph_launch_seconds(device: torch.device, timer: _Timer) -> float:
    a, b = torch.ones(2, 16, device=device).unbind()
    graph = torch.cuda.CUDAGraph()
    a.mul_(b)
    torch.cuda.synchronize(device)
    with torch.cuda.graph(graph):
        for _ in range(100):
            a.mul_(b)
    return timer.best(graph.replay) / 100


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Make `device` the current one, and leave no memory behind."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield
        torch.cuda.empty_cache()
