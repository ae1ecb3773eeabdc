"""What a row's fresh processes say together: each has a reading of its own, and they need not agree.

Where the C library puts what a process allocates, and what it gives back, is drawn anew in every process. So a
process is one draw, however many samples it has, and a row's time and interval are those of its processes' medians.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from afftool import patterns, stats
from afftool.measure.time.conditions import Disturbance, instability, worst_of
from afftool.measure.time.race import LatencyReading
from afftool.record import Cache


@dataclass(frozen=True)
class Pooled:
    """The readings of the processes that timed one row, in the order they were started; at least one."""

    readings: tuple[LatencyReading, ...]

    @property
    def samples_s(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each process."""
        return tuple(reading.samples_s for reading in self.readings)

    @property
    def medians_s(self) -> tuple[float, ...]:
        """The median of each process."""
        return tuple(map(stats.median, self.samples_s))

    def fields(self, batch: int) -> dict[str, Any]:
        """The fields of a record: the time that its processes have on the mean, its interval, and their groups.

        What tells how samples are spread is that of all samples together. One process alone is its own reading.
        """
        together = self._together().fields(batch)
        if len(self.readings) == 1:
            return together | {"processes": 1}
        interval = self._interval
        time_s = interval.estimate if interval else stats.median(self.medians_s)
        groups = patterns.two_groups(self.medians_s)
        return together | {
            "processes": len(self.readings),
            "process_samples": tuple(map(len, self.samples_s)),
            "latency_ms": 1e3 * time_s,
            "latency_low_ms": 1e3 * interval.low if interval else None,
            "latency_high_ms": 1e3 * interval.high if interval else None,
            "throughput_per_s": batch / time_s if time_s else None,
            "fast_group_ms": 1e3 * groups.low if groups else None,
            "slow_group_ms": 1e3 * groups.high if groups else None,
            "slow_group_share": groups.high_share if groups else None,
        }

    def instability(self, precision: float, cache: Cache) -> dict[str, Disturbance]:
        """What disturbed any of them, by name: where several were, as the one it disturbed most.

        How precise they are is asked of all of them together.
        """
        found = worst_of(instability(reading, precision, cache) for reading in self.readings)
        if len(self.readings) == 1:
            return found
        alone = {kind: one for kind, one in found.items() if kind not in ("few samples", "imprecise")}
        return alone | self._imprecise(precision)

    @property
    def _interval(self) -> stats.Interval | None:
        return stats.of_processes(self.medians_s)

    def _imprecise(self, precision: float) -> dict[str, Disturbance]:
        interval = self._interval
        if interval is None or interval.half_width <= precision:
            return {}
        enough = stats.processes_for(self.medians_s, precision)
        more = f"some --processes {enough} would reach that" if enough else "no thousand of them would reach that"
        text = (
            f"{len(self.readings)} processes put the time within ±{interval.half_width:.1%} where ±{precision:.1%} was "
            f"asked for; {more}; or raise --precision, or --budget where each has few samples"
        )
        return {"imprecise": Disturbance(text, interval.half_width)}

    def _together(self) -> LatencyReading:
        first, *_ = readings = self.readings
        faults = [reading.page_faults for reading in readings if reading.page_faults is not None]
        stopped: Literal["precision", "budget"] = (
            "budget" if any(reading.stopped == "budget" for reading in readings) else "precision"
        )
        return LatencyReading(
            samples_s=tuple(itertools.chain.from_iterable(self.samples_s)),
            steps_per_sample=min(reading.steps_per_sample for reading in readings),
            warmup_s=sum(reading.warmup_s for reading in readings),
            settled=all(reading.settled for reading in readings),
            stopped=stopped,
            overhead_s=max(reading.overhead_s for reading in readings),
            parts_s={name: statistics.median(r.parts_s[name] for r in readings) for name in first.parts_s},
            page_faults=statistics.median(faults) if faults else None,
            single_s=tuple(itertools.chain.from_iterable(reading.single_s for reading in readings)),
        )


def pooled(readings: Sequence[LatencyReading | Exception]) -> Pooled | Exception:
    """What they say together, or the first error: a row of which one process fails has failed."""
    good = []
    for reading in readings:
        if isinstance(reading, Exception):
            return reading
        good.append(reading)
    return Pooled(tuple(good))
