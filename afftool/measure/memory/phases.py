"""The stages a case goes through while its memory is watched, each with the peak of its device's allocator."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from afftool.measure.memory.allocations import Recording, Timeline, record
from afftool.measure.running import no_collection


class Observation:
    """The peaks of the stages of one recording, relative to what was allocated before it began."""

    def __init__(self, device: torch.device, recording: Recording) -> None:
        self.recording = recording
        self._cuda = _CudaStatistics(device) if device.type == "cuda" else None

    @property
    def timeline(self) -> Timeline:
        """The recording, once it has ended."""
        return self.recording.timeline

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One of the stages whose peak is wanted; what an earlier one left to the collector is gone before it."""
        gc.collect()
        if self._cuda:
            self._cuda.start()
        with self.recording.phase(name):
            yield
        if self._cuda:
            self._cuda.stop(name)

    def peak(self, stage: str) -> int:
        """The most bytes alive in `stage`. On the CPU known once the recording has ended."""
        if self._cuda:
            return self._cuda.peaks[stage]
        return self.timeline.peak(self.timeline.phases[stage]).nbytes

    def reserved(self, stage: str) -> int | None:
        """The most bytes CUDA's allocator had from the driver in `stage`."""
        return self._cuda.reserved[stage] if self._cuda else None

    def graph_pool(self) -> int | None:
        """Bytes in the private pools of CUDA graphs, None if there are none."""
        return (self._cuda.pool or None) if self._cuda else None


class _CudaStatistics:
    """Peaks by the caching allocator's own statistics, with the idle part of private pools added.

    After a capture the blocks of a CUDA graph count as free, yet nobody else can have them: the graph writes there
    on every replay.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        self._allocated = torch.cuda.memory_allocated(device)
        self._reserved = torch.cuda.memory_reserved(device)
        self._pool, self._idle = private_pools(device)
        self.peaks: dict[str, int] = {}
        self.reserved: dict[str, int] = {}
        self.pool = 0

    def start(self) -> None:
        torch.cuda.synchronize(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)

    def stop(self, stage: str) -> None:
        torch.cuda.synchronize(self._device)
        total, idle = private_pools(self._device)
        self.pool = max(0, total - self._pool)
        extra = max(0, idle - self._idle)
        self.peaks[stage] = torch.cuda.max_memory_allocated(self._device) - self._allocated + extra
        self.reserved[stage] = torch.cuda.max_memory_reserved(self._device) - self._reserved


def private_pools(device: torch.device) -> tuple[int, int]:
    """Bytes in the private pools of CUDA graphs on `device`: all of them, and those that count as free."""
    index = device.index if device.index is not None else torch.cuda.current_device()
    pools = [
        segment
        for segment in torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        if segment["device"] == index and tuple(segment["segment_pool_id"]) != (0, 0)
    ]
    total = sum(segment["total_size"] for segment in pools)
    return total, total - sum(segment["allocated_size"] for segment in pools)


@contextmanager
def watch(device: torch.device) -> Iterator[Observation]:
    """Record a case from before it exists; nothing is left to the chance of a garbage collection.

    Objects from before are frozen, so whatever garbage they hold stays throughout. New objects are collected between
    stages only, which is quick since no others are looked at.
    """
    with no_collection():
        gc.freeze()
        try:
            with record(device) as recording:
                yield Observation(device, recording)
        finally:
            gc.unfreeze()
