"""Something that can be timed in turns with others: a prepared case with a clock."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from afftool import stats
from afftool.backends import Prepared
from afftool.measure.clock import Clock
from afftool.measure.collector import no_collection

PRIME_BELOW_S = 0.05
"""Longer steps are not primed: they bring their data into the cache themselves, in a small share of their time."""
PRIMING_STEPS = 3
"""One step does not bring all of its data into a cache that others have just filled."""
EMPTY_CALLS = 31
"""The last so many empty calls tell what the next one takes."""


@dataclass(frozen=True)
class Sample:
    """Seconds a step, the mean over the steps of one sample, and how many compilations happened meanwhile.

    `overhead_s` is by how many seconds one reading of the clock may be off: its own error, and how much a call that
    makes no step differs from time to time.
    """

    step_s: float
    compilations: int = 0
    overhead_s: float = 0.0


class Contestant(Protocol):
    """Can be timed in turns with others."""

    def sample(self, steps: int) -> Sample:
        """Time so many steps as one sample."""

    def split(self, steps: int) -> Mapping[str, float]:
        """Seconds of each part of a step; empty where a step has none."""

    def move(self) -> None:
        """Put it and the data it works on elsewhere in memory, where that can matter."""


class Timed:
    """A prepared case timed in this process.

    With a warm cache up to three steps, no more than the sample has, go untimed before each sample, so that what the
    neighbours left in the caches (and an empty GPU queue) is not part of it; with `flush` every step is timed alone,
    right after the caches were emptied. What a call takes that makes no step is not part of it either: one is timed
    after every reading, and the median of the last is taken off. Python's garbage collector waits, as in `timeit`.
    """

    def __init__(self, prepared: Prepared, clock: Clock, flush: Callable[[], None] | None = None) -> None:
        self.prepared = prepared
        self._clock = clock
        self._flush = flush
        self._step_s = 0.0
        self._empty_s: deque[float] = deque(maxlen=EMPTY_CALLS)

    def sample(self, steps: int) -> Sample:
        """Time so many steps as one sample. Raises whatever the module raises."""
        before = self.prepared.compilations()
        with self.prepared.mode(), no_collection():
            self._step_s = self._cold(steps) if self._flush else self._warm(steps)
        return Sample(self._step_s, self.prepared.compilations() - before, self._overhead_s())

    def _warm(self, steps: int) -> float:
        repeat = self.prepared.repeat
        if self._step_s < PRIME_BELOW_S:
            repeat(min(steps, PRIMING_STEPS))
        start = self._clock.mark()
        repeat(steps)
        end = self._clock.mark()
        return self._net(self._clock.seconds(start, end)) / steps

    def _cold(self, steps: int) -> float:
        assert self._flush
        total_s = 0.0
        for _ in range(steps):
            self._flush()
            start = self._clock.mark()
            self.prepared.repeat(1)
            total_s += self._net(self._clock.seconds(start, self._clock.mark()))
        return total_s / steps

    def _net(self, seconds: float) -> float:
        """A reading without what it holds of the call: an empty one finds its code as cold as that one did."""
        self._empty_s.append(self._clock.added_by(partial(self.prepared.repeat, 0)))
        return max(0.0, seconds - statistics.median(self._empty_s))

    def _overhead_s(self) -> float:
        spread = stats.iqr(self._empty_s)
        return self._clock.overhead_s + (spread or 0.0) / 2

    def split(self, steps: int) -> dict[str, float]:
        """Seconds of each part of a training step, over so many steps; on a GPU an event is set between the parts.

        With a cold cache the step starts from emptied caches, and each part finds what those before it left there.
        """
        parts = self.prepared.parts
        laps = []
        for _ in range(steps if parts else 0):
            if self._flush:
                self._flush()
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
