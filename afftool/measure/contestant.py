"""Something that can be timed in turns with others: a prepared case with a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from afftool.backends import Prepared
from afftool.measure.clock import Clock

PRIME_BELOW_S = 0.05
"""Longer steps are not primed: they bring their data into the cache themselves, in a small share of their time."""
PRIMING_STEPS = 3
"""One step does not bring all of its data into a cache that others have just filled."""


@dataclass(frozen=True)
class Sample:
    """Seconds a step, the mean over the steps of one sample, and how many compilations happened meanwhile."""

    step_s: float
    compilations: int = 0


class Contestant(Protocol):
    """Can be timed. `overhead_s` is what its clock adds to a sample."""

    @property
    def overhead_s(self) -> float:
        """Seconds that a sample may be off."""

    def sample(self, steps: int) -> Sample:
        """Time so many steps as one sample."""

    def split(self, steps: int) -> Mapping[str, float]:
        """Seconds of each part of a step; empty where a step has none."""

    def move(self) -> None:
        """Put the data it works on elsewhere in memory, where that can matter."""


class Timed:
    """A prepared case timed in this process.

    With a warm cache up to three steps, no more than the sample has, go untimed before each sample, so that what the
    neighbours left in the caches (and an empty GPU queue) is not part of it; with `flush` every step is timed alone,
    right after the caches were emptied.
    """

    def __init__(self, prepared: Prepared, clock: Clock, flush: Callable[[], None] | None = None) -> None:
        self._prepared = prepared
        self._clock = clock
        self._flush = flush
        self._step_s = 0.0

    @property
    def overhead_s(self) -> float:
        """What the clock adds to a sample."""
        return self._clock.overhead_s

    def sample(self, steps: int) -> Sample:
        """Time so many steps as one sample. Raises whatever the module raises."""
        clock, run = self._clock, self._prepared.run
        before = self._prepared.compilations()
        if self._flush:
            self._step_s = sum(self._cold() for _ in range(steps)) / steps
        else:
            if self._step_s < PRIME_BELOW_S:
                run(min(steps, PRIMING_STEPS))
            start = clock.mark()
            run(steps)
            end = clock.mark()
            self._step_s = clock.seconds(start, end) / steps
        return Sample(self._step_s, self._prepared.compilations() - before)

    def split(self, steps: int) -> dict[str, float]:
        """Seconds of each part of a training step, over so many steps; on a GPU an event is set between the parts.

        With a cold cache the step starts from emptied caches, and each part finds what those before it left there.
        """
        parts = self._prepared.parts
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
        """Put the case's data elsewhere in memory, and make one step there: new pages cost the first one extra.

        As with priming, that is a small share of a long step, which goes without.
        """
        if self._prepared.move() and self._step_s < PRIME_BELOW_S:
            self._prepared.run(1)

    def _cold(self) -> float:
        assert self._flush
        self._flush()
        start = self._clock.mark()
        self._prepared.run(1)
        return self._clock.seconds(start, self._clock.mark())
