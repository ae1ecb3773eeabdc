"""The stages a case goes through while its memory is watched, each with the peak of its device's allocator."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from afftool.backends.capture import clear_workspaces, private_segments
from afftool.measure.memory.allocations import Recording, Timeline, record
from afftool.measure.running import no_collection


class Observation:
    """The peaks of the stages of one recording, relative to what was allocated before it began."""

    def __init__(self, recording: Recording, cuda: CudaStatistics | None) -> None:
        self.recording = recording
        self._cuda = cuda

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
            return self._cuda.peak(stage)
        return self.timeline.peak(self.timeline.phases[stage]).nbytes

    def cold_peak(self, stage: str) -> int:
        """The most bytes alive in `stage`, or held at its end with what private pools keep idle from then on."""
        return self._cuda.cold_peak(stage) if self._cuda else self.peak(stage)

    def settle(self, step: Callable[[], None]) -> None:
        """Make a step on CUDA before a stage, so that cuBLAS takes its workspaces again before and not in it."""
        if self._cuda:
            step()

    def leave_out(self, library_bytes: int) -> None:
        """So many bytes of the private pools are workspace of CUDA's libraries, which is no case's there either."""
        if self._cuda:
            self._cuda.library_bytes = library_bytes

    def requested(self, stage: str) -> int | None:
        """The peak of `stage` by what was asked for; None off CUDA and where idle blocks of a pool no longer tell."""
        return self._cuda.requested(stage) if self._cuda else None

    def reserved(self, stage: str) -> int | None:
        """The most bytes that the segments which were free for the case had in `stage`."""
        return self._cuda.reserved(stage) if self._cuda else None

    def graph_pool(self) -> int | None:
        """Bytes in the private pools of CUDA graphs, None if there are none."""
        return (self._cuda.pool() or None) if self._cuda else None


@dataclass(frozen=True)
class _Stage:
    """What the allocator's statistics were in a stage, in bytes more than before the case.

    `workspaces` are cuBLAS's and part of all but `held`, which is what was allocated as the stage ended; `pools` are
    private ones, `idle` what of them counts as free.
    """

    allocated: int
    held: int
    requested: int
    reserved: int
    workspaces: int
    pools: int
    idle: int


class CudaStatistics:
    """Peaks by the caching allocator's own statistics, with the idle part of private pools added.

    After a capture the blocks of a CUDA graph count as free, yet nobody else can have them: the graph writes there
    on every replay. The workspaces of cuBLAS (32 MiB a stream on Hopper) belong to the process. So that they are there
    from a stage's beginning to its end, `warm` makes a step like the case's before, and as it ends they are cleared to
    see how large they were. The cache is emptied first, so that every byte beyond what others had allocated, in new
    segments or in what was left of old ones, was reserved for the case.
    """

    def __init__(self, device: torch.device, warm: Callable[[], None]) -> None:
        self._device = device
        clear_workspaces()  # those of other streams
        warm()
        torch.cuda.synchronize(device)
        self._workspaces = clear_workspaces(device)
        torch.cuda.empty_cache()
        self._allocated = torch.cuda.memory_allocated(device)
        self._requested = self._statistic("current")
        self._pool, self._idle = private_pools(device)
        warm()
        self.stages: dict[str, _Stage] = {}
        self.library_bytes = 0

    def start(self) -> None:
        """Begin a stage, with nothing in the cache that an earlier one needed and this one does not."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)

    def stop(self, stage: str) -> None:
        """End `stage`, and free cuBLAS's workspaces."""
        torch.cuda.synchronize(self._device)
        allocated = torch.cuda.max_memory_allocated(self._device)
        requested = self._statistic("peak")
        reserved = torch.cuda.max_memory_reserved(self._device)
        workspaces = clear_workspaces(self._device)
        pools, idle = private_pools(self._device)
        self.stages[stage] = _Stage(
            allocated=allocated - self._allocated,
            held=torch.cuda.memory_allocated(self._device) - self._allocated,
            requested=requested - self._requested,
            reserved=reserved - self._allocated,
            workspaces=workspaces,
            pools=max(0, pools - self._pool),
            idle=max(0, idle - self._idle),
        )

    def peak(self, stage: str) -> int:
        """The peak of a stage in which private pools are as they are at its end."""
        seen = self.stages[stage]
        return seen.allocated - seen.workspaces + seen.idle - self.library_bytes

    def cold_peak(self, stage: str) -> int:
        """The peak of a stage that makes them: the pools count in it while they are filled, and are held after it."""
        seen = self.stages[stage]
        while_filled = seen.allocated - max(seen.workspaces, self._workspaces)
        return max(while_filled, seen.held + seen.idle - self.library_bytes)

    def reserved(self, stage: str) -> int:
        """The most bytes of segments in a stage, less what others had allocated of them."""
        seen = self.stages[stage]
        return seen.reserved - seen.workspaces - self.library_bytes

    def requested(self, stage: str) -> int | None:
        """The peak by what was asked for; None where there are pools, whose idle blocks no longer tell."""
        seen = self.stages[stage]
        return None if seen.pools else seen.requested - seen.workspaces

    def pool(self) -> int:
        """What the private pools had at the end of the last stage."""
        last = [*self.stages.values()][-1]
        return max(0, last.pools - self.library_bytes)

    def _statistic(self, which: Literal["current", "peak"]) -> int:
        return int(torch.cuda.memory_stats(self._device)[f"requested_bytes.all.{which}"])


def private_pools(device: torch.device) -> tuple[int, int]:
    """Bytes in the private pools of CUDA graphs on `device`: all of them, and those that count as free."""
    pools = private_segments(device.index if device.index is not None else torch.cuda.current_device())
    total = sum(segment["total_size"] for segment in pools)
    return total, total - sum(segment["allocated_size"] for segment in pools)


@contextmanager
def watch(device: torch.device, warm: Callable[[], None]) -> Iterator[Observation]:
    """Record a case from before it exists; nothing is left to the chance of a garbage collection.

    Objects from before are frozen, so whatever garbage they hold stays throughout. New objects are collected between
    stages only, which is quick since no others are looked at. `warm` lets CUDA's libraries take what they take once a
    process, so that it is no case's.
    """
    with no_collection():
        gc.freeze()
        try:
            cuda = CudaStatistics(device, warm) if device.type == "cuda" else None
            with record(device) as recording:
                yield Observation(recording, cuda)
        finally:
            gc.unfreeze()
