"""A CUDA device for machines without one: what `torch.cuda.graph` and the caching allocator do, as far as it matters.

`torch.cuda.graph` itself is the real one; below it are streams, pools with their references, cuBLAS's workspaces and
the default generator. `torch_version` decides what a failed capture leaves behind, as read in torch's C++.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

PREVIOUS = "CUDA error: operation failed due to a previous error during capture"
WORKSPACE = 1 << 25


class Generator:
    def __init__(self, capturing: bool = False) -> None:
        self.capturing = capturing

    def clone_state(self) -> Generator:
        return Generator()

    def graphsafe_set_state(self, state: Generator) -> None:
        self.capturing = state.capturing

    def draw(self) -> None:
        if self.capturing:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")


class Stream:
    def __init__(self, name: str = "own") -> None:
        self.device = torch.device("cuda", 0)
        self.name = name

    def wait_stream(self, other: Stream) -> None:
        pass


class FakeCuda:
    """The state of the device, to be asked after a test's act."""

    def __init__(self, torch_version: tuple[int, int]) -> None:
        self.version = torch_version
        self.default = self.current = Stream("default")
        self.generator = Generator()
        self.references: dict[tuple[int, int], int] = {}
        self.recording: set[tuple[int, int]] = set()
        self.capturing: Graph | None = None
        self.invalid = False
        self.segments: list[dict[str, Any]] = []
        self.workspaces: dict[Stream, dict[str, Any]] = {}
        self.peaks = {"allocated": 0, "requested": 0, "reserved": 0}

    # what a module on the device does

    def allocate(self, nbytes: int, segment_bytes: int | None = None) -> dict[str, Any]:
        """A block at the start of a segment, in the pool of the graph that is being captured, if one is."""
        pool = self.capturing.pool_id if self.capturing else (0, 0)
        segment = {"device": 0, "segment_pool_id": pool, "total_size": segment_bytes or self.block(nbytes)}
        self.segments.append(segment | {"active_size": 0, "allocated_size": 0, "requested": 0})
        return self.extend(self.segments[-1], nbytes)

    def extend(self, segment: dict[str, Any], nbytes: int) -> dict[str, Any]:
        """Another block in `segment`."""
        segment["active_size"] += self.block(nbytes)
        segment["allocated_size"] += self.block(nbytes)
        segment["requested"] += nbytes
        assert segment["allocated_size"] <= segment["total_size"]
        self.peaks = {name: max(peak, self.total(name)) for name, peak in self.peaks.items()}
        return segment

    @staticmethod
    def block(nbytes: int) -> int:
        return -(-nbytes // 512) * 512

    @staticmethod
    def free(segment: dict[str, Any]) -> None:
        segment["active_size"] = segment["allocated_size"] = segment["requested"] = 0

    def matmul(self) -> None:
        """Has cuBLAS take a workspace for the current stream."""
        if self.current not in self.workspaces:
            self.workspaces[self.current] = self.allocate(WORKSPACE)

    def synchronizing(self, words: str = "CUDA error: operation not permitted when stream is capturing\nmore") -> None:
        """What `.item()` does: it breaks a capture."""
        if self.capturing:
            self.invalid = True
            raise RuntimeError(words)

    # what torch asks

    def total(self, what: str) -> int:
        key = {"allocated": "allocated_size", "requested": "requested", "reserved": "total_size"}[what]
        return sum(segment[key] for segment in self.segments)

    def reset_peaks(self, device: Any = None) -> None:
        self.peaks = {name: self.total(name) for name in self.peaks}

    def empty_cache(self) -> None:
        assert not self.recording, "captures_underway.empty() INTERNAL ASSERT FAILED"
        assert all(count >= 0 for count in self.references.values()), "use_count == 0 INTERNAL ASSERT FAILED"
        self.segments = [s for s in self.segments if s["active_size"] or self.references.get(s["segment_pool_id"], 0)]

    def end_allocate_to_pool(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.recording:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.recording.discard(pool)

    def release_pool(self, device: int, pool: tuple[int, int]) -> None:
        self.references[pool] -= 1

    def clear_workspaces(self) -> None:
        for segment in self.workspaces.values():
            self.free(segment)
        self.workspaces.clear()


class Graph:
    """`torch.cuda.CUDAGraph` after aten/src/ATen/cuda/CUDAGraph.cpp, bound to a device by `on`."""

    cuda: FakeCuda

    def __init__(self) -> None:
        self.ended = False
        self.holds = False
        self.replayed = 0

    def capture_begin(self, pool: tuple[int, int], **settings: Any) -> None:
        assert self.cuda.current is not self.cuda.default
        self.pool_id = pool
        self.holds = True
        self.cuda.references[pool] = self.cuda.references.get(pool, 0) + 1
        self.cuda.recording.add(pool)
        self.cuda.generator.capturing = True
        self.cuda.capturing = self

    def capture_end(self) -> None:
        self.cuda.capturing = None
        broken, self.cuda.invalid = self.cuda.invalid, False
        if not broken or self.cuda.version >= (2, 12):
            self.cuda.recording.discard(self.pool_id)
        if broken:
            raise RuntimeError(PREVIOUS)
        self.cuda.generator.capturing = False
        self.ended = True

    def reset(self) -> None:
        if self.holds and (self.ended or self.cuda.version >= (2, 14)):
            self.cuda.references[self.pool_id] -= 1
            self.holds = False

    def replay(self) -> None:
        self.replayed += 1


def installed(monkeypatch: pytest.MonkeyPatch, torch_version: tuple[int, int] = (2, 11)) -> FakeCuda:
    """Put a fresh device under `torch.cuda` until the test ends."""
    fake = FakeCuda(torch_version)
    pools = iter(range(1, 1000))

    class StreamContext:
        def __init__(self, new: Stream) -> None:
            self.new = new

        def __enter__(self) -> None:
            self.previous, fake.current = fake.current, self.new

        def __exit__(self, *error: object) -> None:
            fake.current = self.previous

    def put(target: Any, **replaced: Any) -> None:
        for name, value in replaced.items():
            monkeypatch.setattr(target, name, value, raising=False)

    put(
        torch.cuda,
        device=lambda index: nullcontext(),
        stream=StreamContext,
        Stream=Stream,
        CUDAGraph=type("BoundGraph", (Graph,), {"cuda": fake}),
        current_stream=lambda device=None: fake.current,
        is_current_stream_capturing=lambda: fake.capturing is not None,
        graph_pool_handle=lambda: (0, next(pools)),
        synchronize=lambda device=None: None,
        empty_cache=fake.empty_cache,
        memory_allocated=lambda device=None: fake.total("allocated"),
        max_memory_allocated=lambda device=None: fake.peaks["allocated"],
        max_memory_reserved=lambda device=None: fake.peaks["reserved"],
        reset_peak_memory_stats=fake.reset_peaks,
        memory_stats=lambda device=None: {
            "requested_bytes.all.current": fake.total("requested"),
            "requested_bytes.all.peak": fake.peaks["requested"],
        },
        memory_snapshot=lambda: [dict(segment) for segment in fake.segments],
        default_generators=[fake.generator],
    )
    put(
        torch._C,
        _cuda_endAllocateToPool=fake.end_allocate_to_pool,
        _cuda_releasePool=fake.release_pool,
        _cuda_clearCublasWorkspaces=fake.clear_workspaces,
        _host_emptyCache=lambda: None,
    )
    return fake
