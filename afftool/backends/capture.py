"""Capturing into CUDA graphs so that nothing stays behind: no stream, no pool, no generator, whatever happens in it.

What torch leaves undone after a failed capture is put right here: its `graph.__exit__` keeps the capture stream as the
current one if `capture_end` raises; before 2.12 `capture_end` then leaves allocations going to the pool and no version
up to 2.13.0 gives the pool's reference back; and the default generator believes that it is captured, so that the next
dropout raises "Offset increment outside graph capture".
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch


class CaptureFailed(Exception):
    """A step could not be captured; its words are those of the first error, from which the others followed."""


class Graphs:
    """CUDA graphs that share one stream and one private pool, cuBLAS's workspace included.

    A workspace that lay elsewhere could be taken away by whoever clears them (inductor does), with the graphs still
    writing to it; and one that stayed known after the capture would be used by others. `library_bytes` says what of the
    pool is such workspace.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._device = stream.device.index
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[str, torch.cuda.CUDAGraph] = {}
        self.library_bytes = 0

    @property
    def replays(self) -> Mapping[str, Callable[[], None]]:
        """What replays each graph, in the order they were captured."""
        return {name: graph.replay for name, graph in self._graphs.items()}

    def capture(self, parts: Mapping[str, Callable[[], None]], let_go: Callable[[], None]) -> None:
        """Capture one graph a part. Raises `CaptureFailed`, `torch.OutOfMemoryError`, and whatever else a part raises.

        After a failure nothing of the attempt is left; `let_go` drops what the caller holds of the pool.
        """
        before = sys.exception()
        try:
            # The outer stream context puts the caller's stream back where torch's own does not.
            with torch.cuda.stream(self._stream):
                clear_workspaces()
                for name, part in parts.items():
                    graph = self._graphs[name] = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                        part()
                self.library_bytes = clear_workspaces(self._device)
        except BaseException as error:
            cause = first_of(error, before)
            _forget_frames(error, before)
            let_go()
            self._undo()
            if isinstance(cause, RuntimeError) and not isinstance(cause, torch.OutOfMemoryError):
                raise CaptureFailed(str(cause)) from error
            if cause is error:
                raise
            raise cause from None

    def close(self) -> None:
        """Destroy the graphs and give their pool back; the driver has its memory at the next `empty_cache`."""
        for graph in self._graphs.values():
            graph.reset()
        self._graphs.clear()

    def _undo(self) -> None:
        """Put back what a failed capture changed. A device that no longer answers has nothing to put back."""
        with suppress(RuntimeError), torch.cuda.stream(self._stream):
            if torch.cuda.is_current_stream_capturing():  # it failed before it got to its end
                list(self._graphs.values())[-1].capture_end()
        with suppress(RuntimeError):  # raised where torch itself has ended it
            torch._C._cuda_endAllocateToPool(self._device, self._pool)
        with suppress(RuntimeError):
            clear_workspaces()
            self.close()
            gc.collect()
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
            # Once every graph is gone, the cache gives back whatever of the pool is unused, unless the failed graph's
            # reference is left. There is no asking for it, and one taken off too much breaks the allocator.
            left = [s for s in private_segments(self._device) if tuple(s["segment_pool_id"]) == self._pool]
            if any(segment["active_size"] == 0 for segment in left):
                torch._C._cuda_releasePool(self._device, self._pool)
                torch.cuda.empty_cache()
        with suppress(RuntimeError):
            generator = torch.cuda.default_generators[self._device]
            generator.graphsafe_set_state(generator.clone_state())  # the same numbers, and not captured


def first_of(error: BaseException, before: BaseException | None = None) -> BaseException:
    """The error that `error` followed from, of those raised since `before` was being handled.

    Once a capture is broken every call in it fails, its end last, and only the first error says why. What is no
    `RuntimeError` (a `KeyError` that the module handled) broke no capture, unless its end alone failed after it.
    """
    while (earlier := error.__context__) is not None and earlier is not before:
        if not isinstance(earlier, RuntimeError) and not any(words in str(error) for words in _AFTERMATH):
            break
        error = earlier
    return error


_AFTERMATH = ("previous error during capture", "unjoined work", "Invalid capture")
"""What the end of a broken capture says, for whatever reason it was broken."""


def clear_workspaces(device: int | torch.device | None = None) -> int:
    """Free the workspaces that cuBLAS keeps, one for each of its handles and streams; how many bytes `device` got back.

    It takes new ones at its next call. A graph of `Graphs` keeps its own, so that this is safe while it lives.
    """
    before = torch.cuda.memory_allocated(device)
    torch._C._cuda_clearCublasWorkspaces()
    return before - torch.cuda.memory_allocated(device)


def private_segments(device: int) -> list[dict[str, Any]]:
    """The allocator's segments on `device` that belong to a private pool, as torch's snapshot tells them."""
    return [
        segment
        for segment in torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
        if segment["device"] == device and tuple(segment["segment_pool_id"]) != (0, 0)
    ]


def _forget_frames(error: BaseException | None, before: BaseException | None) -> None:
    """Clear the locals of the frames that these errors hold, back to `before`: their tensors may lie in the pool."""
    while error is not None and error is not before:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
