"""Measure this machine's ceilings: bandwidth by size, matrix rate by dtype, the cost of launching one operator.

A ceiling is the best of many tries, so a busy moment cannot lower it much. It takes well under 20 seconds, on a GPU
about five.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from afftool.measure.ceilings.roofline import BYTES as DTYPES
from afftool.measure.ceilings.roofline import Ceilings, Rounding
from afftool.measure.time.caches import last_level_bytes
from afftool.measure.time.contestant import Clock, clock_for

MEBI = 1 << 20
WORKING_SETS = (MEBI // 4, MEBI, 4 * MEBI)
"""Bytes a bandwidth is measured at, besides a half, one and two last-level caches and `out_of_cache`."""
SIDES = {"cpu": (256, 512, 1024, 2048, 4096, 8192), "cuda": (256, 1024, 4096, 8192)}
"""The sides of the square matrices that are tried, by kind of device."""
LONGEST_PRODUCT_S = 0.1
"""A product that would take longer is not tried: it is made a dozen times."""
COPIES_BYTES, MOST_COPIES = 1 << 30, 100
"""A graph repeats a copy until it has been through so many bytes, but no more often than this."""


def calibrate(device: str = "cpu", *, seconds_each: float = 0.1, clock: Clock | None = None) -> Ceilings:
    """Measure the ceilings of `device` with the threads torch has now, and on the CPU with one alone.

    `seconds_each` is spent on each of some 50 kernels, a call at the least; `clock` is the device's own unless given.
    Raises `torch.OutOfMemoryError` on a device that is full.
    """
    target = torch.device(device)
    timer = _Timer(target, seconds_each, clock or clock_for(device))
    with torch.inference_mode(), _on(target):
        bandwidths = tuple(_ceilings_alone(_bandwidths(target, timer)))
        rates = {name: _matrix_rate(target, getattr(torch, name), timer, SIDES[target.type]) for name in DTYPES}
        return Ceilings(
            device=device,
            bandwidths=bandwidths,
            flops_per_s={name: rate.flops_per_s for name, rate in rates.items()},
            matrix_sides={name: rate.side for name, rate in rates.items()},
            float32_rounding=_rounding(target, rates["float32"]),
            launch_s=_launch_seconds(target, timer),
            graph_launch_s=_graph_launch_seconds(target, timer) if target.type == "cuda" else None,
            taken=datetime.now(UTC).isoformat(timespec="seconds"),
        )


class _Best(Protocol):
    """Finds the shortest time of a callable."""

    def best(self, run: Callable[[], object]) -> float:
        """Seconds that one call takes at the best."""


class _Timer:
    """The shortest time of a callable by the device's own clock, each sample long enough for that.

    On the CPU the better of one thread and all: threads that wait for each other are slower than one on small
    work, and anywhere on a busy machine.
    """

    SAMPLE_S = 1e-3

    def __init__(self, device: torch.device, seconds: float, clock: Clock) -> None:
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
        start = self._clock.mark()
        for _ in range(calls):
            run()
        return self._clock.seconds(start, self._clock.mark())


class _Graphed:
    """The shortest time of one of `times` calls that a CUDA graph makes in a row.

    Launched one by one from Python, what moves few bytes takes the time of its launch.
    """

    def __init__(self, timer: _Best, times: int) -> None:
        self._timer = timer
        self._times = times

    def best(self, run: Callable[[], object]) -> float:
        """Seconds that one call takes at the best; `run` is called once before the capture."""
        run()
        graph = torch.cuda.CUDAGraph()
        # On a stream of its own: torch's default one for captures belongs to the device that captured first.
        with torch.cuda.graph(graph, stream=torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            for _ in range(self._times):
                run()
        return self._timer.best(graph.replay) / self._times


def _bandwidths(device: torch.device, timer: _Timer) -> Iterator[tuple[int, float]]:
    """Pairs of working set and the best bandwidth of a copy, a triad (as STREAM's) and a sum, in that set."""
    cache = last_level_bytes(str(device))
    for size in sorted({*WORKING_SETS, cache // 2, cache, 2 * cache, out_of_cache(device)}):
        by = _Graphed(timer, _copies(size)) if device.type == "cuda" else timer
        yield size, max(_copy(device, size, by), _triad(device, size, by), _sum(device, size, by))


def _copies(size: int) -> int:
    """How often a graph goes through a working set of `size` bytes."""
    return max(1, min(MOST_COPIES, COPIES_BYTES // size))


def _ceilings_alone(bandwidths: Iterable[tuple[int, float]]) -> list[tuple[int, float]]:
    """The pairs that no larger set outdoes: what a larger set can do a smaller one can, and was kept by its launches.

    Even within a graph a kernel takes a microsecond to begin, in which a large GPU moves megabytes.
    """
    kept: list[tuple[int, float]] = []
    for size, rate in sorted(bandwidths, reverse=True):
        if not kept or rate >= kept[-1][1]:
            kept.append((size, rate))
    return kept[::-1]


def _copy(device: torch.device, size: int, timer: _Best) -> float:
    a, b = torch.ones(2, size // 8, device=device).unbind()
    return 2 * a.nbytes / timer.best(lambda: a.copy_(b))


def _triad(device: torch.device, size: int, timer: _Best) -> float:
    a, b, c = torch.ones(3, size // 12, device=device).unbind()
    return 3 * a.nbytes / timer.best(lambda: torch.add(b, c, alpha=3.0, out=a))


def _sum(device: torch.device, size: int, timer: _Best) -> float:
    a = torch.ones(size // 4, device=device)
    return a.nbytes / timer.best(lambda: a.sum())


def out_of_cache(device: torch.device) -> int:
    """Bytes far beyond the last-level cache of `device`: four times it, and at least 256 MiB."""
    return max(256 * MEBI, 4 * last_level_bytes(str(device)))


@dataclass(frozen=True)
class _MatrixRate:
    """The best rate of a dtype, the side of the matrices it was reached at, and the kernel that reached it."""

    flops_per_s: float
    side: int
    kernel: Callable[[Tensor, Tensor, Tensor], Tensor]


def _product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    return torch.mm(a, b, out=out)


def _convolution(a: Tensor, b: Tensor, _out: Tensor) -> Tensor:
    side = len(a)
    return F.conv2d(a.view(1, side, -1, 16), b.view(side, side, 1, 1))


def _matrix_rate(device: torch.device, dtype: torch.dtype, timer: _Best, sides: Iterable[int]) -> _MatrixRate:
    """The best of matrix products and 1x1 convolutions of all the sides that are affordable.

    Both, because they go through different libraries with different rules for what they round to. What a side would
    take is foreseen from the best rate so far.
    """
    best = _MatrixRate(0.0, 0, _product)
    for side in sides:
        flops = 2 * side**3
        if best.side and flops / best.flops_per_s > LONGEST_PRODUCT_S:
            break
        a, b, out = _matrices(device, dtype, side)
        for kernel in (_product, _convolution):
            seconds = timer.best(lambda kernel=kernel, a=a, b=b, out=out: kernel(a, b, out))  # type: ignore[misc]
            best = max(best, _MatrixRate(flops / seconds, side, kernel), key=lambda rate: rate.flops_per_s)
    return best


ELEMENT = 1 + 2**-9 + 2**-12
"""What the matrices hold: float32 keeps both of the small terms, TF32 the first, bfloat16 none."""


def _matrices(device: torch.device, dtype: torch.dtype, side: int) -> tuple[Tensor, Tensor, Tensor]:
    a, b = torch.full((2, side, side), ELEMENT, device=device, dtype=dtype).unbind()
    return a, b, torch.empty(side, side, device=device, dtype=dtype)


def _rounding(device: torch.device, rate: _MatrixRate) -> Rounding:
    """What the kernel that reached float32's rate rounds its operands to, told from what it makes of them."""
    made = rate.kernel(*_matrices(device, torch.float32, rate.side)).flatten()[0]
    return rounding_of(float(made) / rate.side)


def rounding_of(square: float) -> Rounding:
    """What `ELEMENT` was rounded to before it was squared to this. Pure."""
    kept: dict[Rounding, float] = {"ieee": ELEMENT, "tf32": 1 + 2**-9, "bf16": 1.0}
    return min(kept, key=lambda name: abs(kept[name] ** 2 - square))


def _launch_seconds(device: torch.device, timer: _Timer) -> float:
    a, b = torch.ones(2, 16, device=device).unbind()

    def many() -> None:
        for _ in range(100):
            a.mul_(b)

    return timer.best(many) / 100


def _graph_launch_seconds(device: torch.device, timer: _Timer) -> float:
    a, b = torch.ones(2, 16, device=device).unbind()
    return _Graphed(timer, MOST_COPIES).best(lambda: a.mul_(b))


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Make `device` the current one, and leave no memory behind."""
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield
        torch.cuda.empty_cache()
