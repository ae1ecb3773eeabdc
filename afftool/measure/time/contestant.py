"""What can be timed in turns with others: a prepared case, and the clock its times are read from.

The clock is the monotonic one, CUDA events, or whatever a test hands in.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from afftool import stats
from afftool.allocator import page_faults
from afftool.backends import Prepared
from afftool.measure.running import no_collection


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


PRIME_BELOW_S = 0.05
"""Longer steps are not primed: they bring their data into the cache themselves, in a small share of their time."""
SINGLE_ERROR = 0.05
"""The most of a single step's time that may be the clock's error and that of what is taken off for the call."""
PRIMING_STEPS = 3
"""One step does not bring all of its data into a cache that others have just filled."""
EMPTY_CALLS = 31
"""The last so many empty calls tell what the next one takes."""


def _since(before: int | None) -> int | None:
    now = page_faults()
    return None if before is None or now is None else now - before


@dataclass(frozen=True)
class Sample:
    """Seconds a step, the mean over the steps of one sample, and how many compilations happened meanwhile.

    `overhead_s` is by how many seconds one reading of the clock may be off: its own error, and how much a call that
    makes no step differs from time to time. `page_faults` are those of a step, None where the system tells none.
    """

    step_s: float
    compilations: int = 0
    overhead_s: float = 0.0
    page_faults: float | None = None


class Contestant(Protocol):
    """Can be timed in turns with others."""

    def sample(self, steps: int) -> Sample:
        """Time so many steps as one sample."""

    def split(self, steps: int) -> Mapping[str, float]:
        """Seconds of each part of a step; empty where a step has none."""

    def singly(self, steps: int) -> Sequence[float]:
        """Seconds of each of so many steps by itself; empty where the clock cannot tell a single one."""

    def move(self) -> None:
        """Put it and the data it works on elsewhere in memory, where that can matter."""


class Timed:
    """A prepared case timed in this process.

    With a warm cache up to three steps, no more than the sample has, go untimed before each sample, so that what the
    neighbours left in the caches (and an empty GPU queue) is not part of it; with `flush` every step is timed alone,
    right after the caches were emptied, and so from its first launch on, since a GPU is idle then. Alone too are timed
    the steps of a module that writes into its inputs, which are put back between the readings. What a call takes
    that makes no step is not part of it either: one is timed after every reading, and the median of the last is taken
    off. Python's garbage collector waits, as in `timeit`.
    """

    def __init__(self, prepared: Prepared, clock: Clock, flush: Callable[[], None] | None = None) -> None:
        self.prepared = prepared
        self._clock = clock
        self._flush = flush
        self._step_s = 0.0
        self._faults: int | None = None
        self._on_cpu = not isinstance(clock, CudaClock)
        self._empty_s: deque[float] = deque(maxlen=EMPTY_CALLS)

    def sample(self, steps: int) -> Sample:
        """Time so many steps as one sample. Raises whatever the module raises."""
        before = self.prepared.compilations()
        with self.prepared.mode(), no_collection():
            apart = self._flush or self.prepared.restore
            self._step_s = statistics.fmean(self._apart(steps)) if apart else self._together(steps)
        compilations = self.prepared.compilations() - before
        return Sample(self._step_s, compilations, self._overhead_s(), self._faults_per(steps))

    def _faults_per(self, steps: int) -> float | None:
        return self._faults / steps if self._on_cpu and self._faults is not None else None

    def _together(self, steps: int) -> float:
        repeat = self.prepared.repeat
        self._prime(repeat, steps)
        faulted = page_faults()
        start = self._clock.mark()
        repeat(steps)
        end = self._clock.mark()
        self._faults = _since(faulted)
        return self._net(self._clock.seconds(start, end)) / steps

    def _prime(self, run: Callable[[int], None], steps: int) -> None:
        if self._step_s < PRIME_BELOW_S:
            run(min(steps, PRIMING_STEPS))

    def _apart(self, steps: int) -> list[float]:
        if not self._flush:
            self._prime(self.prepared.run, steps)
        times = []
        faulted = page_faults()  # the caches are emptied by memory that is there already
        for _ in range(steps):
            self._get_ready()
            start = self._clock.mark()
            self.prepared.repeat(1)
            times.append(self._net(self._clock.seconds(start, self._clock.mark())))
        self._faults = _since(faulted)
        return times

    def _get_ready(self) -> None:
        """What goes before a step that is timed alone."""
        if self.prepared.restore:
            self.prepared.restore()
        if self._flush:
            self._flush()

    def _net(self, seconds: float) -> float:
        """A reading without what it holds of the call: an empty one finds its code as cold as that one did."""
        self._empty_s.append(self._clock.added_by(partial(self.prepared.repeat, 0)))
        return max(0.0, seconds - statistics.median(self._empty_s))

    def _overhead_s(self) -> float:
        spread = stats.iqr(self._empty_s)
        return self._clock.overhead_s + (spread or 0.0) / 2

    def singly(self, steps: int) -> list[float]:
        """Seconds of each of so many steps by itself; empty where `SINGLE_ERROR` of a step is less than the error.

        They run one after the other as in a sample, with the clock read in between.
        """
        with self.prepared.mode(), no_collection():
            if self._flush or self.prepared.restore:
                times = self._apart(steps)
            else:
                self._prime(self.prepared.repeat, steps)
                marks = [self._clock.mark()]
                for _ in range(steps):
                    self.prepared.repeat(1)
                    marks.append(self._clock.mark())
                times = [self._net(self._clock.seconds(*ends)) for ends in itertools.pairwise(marks)]
        return times if self._overhead_s() <= SINGLE_ERROR * statistics.median(times) else []

    def split(self, steps: int) -> dict[str, float]:
        """Seconds of each part of a training step, over so many steps; on a GPU an event is set between the parts.

        With a cold cache the step starts from emptied caches, and each part finds what those before it left there.
        """
        parts = self.prepared.parts
        laps = []
        for _ in range(steps if parts else 0):
            self._get_ready()
            marks = [self._clock.mark()]
            for part in parts.values():
                part()
                marks.append(self._clock.mark())
            laps.append(marks)
        return {
            name: sum(self._clock.seconds(marks[i], marks[i + 1]) for marks in laps) / steps
            for i, name in enumerate(parts)
        }

    def move(self) -> None:
        """Put the case elsewhere in memory, and make one step there: new pages cost the first one extra."""
        if self.prepared.move():
            self.prepared.run(1)
