"""The clock that times are read from: the monotonic one, CUDA events, or whatever a test hands in."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol


class Clock(Protocol):
    """Marks moments in the stream of work, and tells the time between two of them.

    `overhead_s` is the least a reading can be off: the clock's resolution, or what an empty stretch between two marks
    reads, whichever is more. `now` is in seconds of wall time, for budgets.
    """

    @property
    def overhead_s(self) -> float:
        """Seconds that a reading may be off."""

    def now(self) -> float:
        """Seconds of wall time, from any beginning."""

    def mark(self) -> Any:
        """This moment in the stream of work."""

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two marks, once both are reached."""

    def added_by(self, call: Callable[[], None]) -> float:
        """Seconds that a call which starts no work adds between two marks."""


class MonotonicClock:
    """`time.perf_counter_ns`, for devices that work while the caller waits: the CPU."""

    def __init__(self) -> None:
        self.overhead_s = max(time.get_clock_info("perf_counter").resolution, _typical_empty_stretch(self))

    def now(self) -> float:
        """Seconds of wall time."""
        return time.perf_counter()

    mark = staticmethod(time.perf_counter_ns)

    def seconds(self, start: int, end: int) -> float:
        """Seconds between two marks."""
        return (end - start) / 1e9

    def added_by(self, call: Callable[[], None]) -> float:
        """Seconds of a call."""
        start = self.mark()
        call()
        return self.seconds(start, self.mark())


class CudaClock:
    """CUDA events on the device's current stream: the GPU's own time, without the wait of the caller."""

    RESOLUTION_S = 0.5e-6
    """As CUDA documents it for `cudaEventElapsedTime`."""

    def __init__(self, device: str) -> None:
        import torch

        self._device = torch.device(device)
        self._event = torch.cuda.Event
        self._stream = torch.cuda.current_stream
        torch.cuda.synchronize(self._device)
        self.overhead_s = max(self.RESOLUTION_S, _typical_empty_stretch(self))

    def now(self) -> float:
        """Seconds of wall time."""
        return time.perf_counter()

    def mark(self) -> Any:
        """A moment in the stream, reached when all work before it is done."""
        event = self._event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream(self._device))
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds of GPU time between two marks, waiting for the later."""
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def added_by(self, call: Callable[[], None]) -> float:
        """None: the GPU works off its queue while the caller calls. `overhead_s` covers a queue that ran empty."""
        return 0.0


def clock_for(device: str) -> Clock:
    """The clock for cases on `device`."""
    return CudaClock(device) if device.startswith("cuda") else MonotonicClock()


def _typical_empty_stretch(clock: MonotonicClock | CudaClock) -> float:
    stretches = []
    for _ in range(101):
        start = clock.mark()
        end = clock.mark()
        stretches.append(clock.seconds(start, end))
    return statistics.median(stretches)
