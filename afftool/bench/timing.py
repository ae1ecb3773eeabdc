"""The times of rows that are ready: in this process or in fresh ones, in turns, within one budget for the bench."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from afftool import stats, units
from afftool.backends.workload import devices_random_state_kept
from afftool.bench.child import Isolated
from afftool.bench.place import Place
from afftool.bench.rows import Row, compare
from afftool.failure import FailedError
from afftool.measure.time.conditions import Disturbance, Watch, told, worst_of
from afftool.measure.time.contestant import Clock, Contestant
from afftool.measure.time.processes import Pooled, pooled
from afftool.measure.time.race import FEWEST_ROUNDS, LatencyReading, race
from afftool.spec import CaseSpec
from afftool.spec.options import Options

FEWEST_ROUNDS_EACH = 24
"""Rounds of each of several processes before precision may stop it, as `FEWEST_ROUNDS` is for one."""

_Found = tuple[Row, Pooled | Exception, dict[str, Disturbance]]
"""A row, what its processes say together or what went wrong, and what disturbed all that were timed with it."""


@dataclass
class Timing:
    """Times rows as `options` say where `place` made them ready; `clock` is the device's own unless given.

    `tell` hears what is being timed.
    """

    options: Options
    place: Place
    clock: Clock | None
    tell: Callable[[str], None]
    _spent_s: float = 0.0

    def time(self, rows: Sequence[Row], baseline: CaseSpec | None, *, rows_left: int) -> None:
        """Time the rows in turns; those not timed before get their times, all their ratio to the baseline's.

        What is left of the budget is for `rows_left` rows, these among them. If this process loses the device on the
        way, none of them is to blame yet: all are made ready again, each in a process of its own, and timed anew.
        """
        self.place.enter_lost(rows)
        spent_s = self._spent_s
        failed = self._time(rows, rows_left)
        if failed:
            self.place.recover(rows[0].spec.device)
            if self.place.enter_lost(rows):
                self._spent_s = spent_s
                failed = self._time(rows, rows_left)
        for row, error in failed:
            row.fail(error)
            row.close()
        if baseline is not None:
            compare(rows, baseline)

    def _time(self, rows: Sequence[Row], rows_left: int) -> list[tuple[Row, FailedError]]:
        """Time those of the rows that are ready; the ones that failed, with why."""
        here = [row for row in rows if row.entrant is not None]
        fresh = [row for row in rows if row.fresh and row.ready]
        budget_s = max(0.0, self.options.budget_s - self._spent_s) / max(1, rows_left)
        failed = []
        for row, result, disturbed in (
            *(self._time_fresh(fresh, budget_s * _untimed(fresh)) if fresh else ()),
            *(self._time_here(here, budget_s * _untimed(here)) if here else ()),
        ):
            if isinstance(result, Exception):
                failed.append((row, self.place.failure(row, result)))
                continue
            row.samples_s = result.samples_s
            if not row.timed:
                isolated = row.fresh or (row.entrant is not None and row.entrant.pid is not None)
                row.record = replace(
                    row.record,
                    **told(result.instability(self.options.precision, self.options.cache) | disturbed),
                    cache=self.options.cache,
                    isolation="process" if isolated else "none",
                    **result.fields(row.spec.batch),
                )
        return failed

    def _time_here(self, rows: Sequence[Row], budget_s: float) -> Iterator[_Found]:
        """Time rows that are ready, in turns."""
        self.tell("timing " + _names(rows))
        entrants = [row.entrant for row in rows if row.entrant is not None]
        with devices_random_state_kept(*{row.spec.device for row in rows if row.entrant and row.entrant.pid is None}):
            results, disturbed = self._take_turns(
                rows[0].spec.device,
                [entrant.contestant for entrant in entrants],
                [entrant.pid for entrant in entrants if entrant.pid],
                budget_s,
            )
        for row, result in zip(rows, results, strict=True):
            yield row, pooled([result]), disturbed

    def _time_fresh(self, rows: Sequence[Row], budget_s: float) -> Iterator[_Found]:
        """Time each row in several fresh processes, the first of all in turns, then the second of all, and so on."""
        times = self.options.processes
        found: list[list[LatencyReading | Exception]] = [[] for _ in rows]
        disturbances: dict[str, Disturbance] = {}
        for number in range(1, times + 1):
            so_far = "; ".join(
                f"{row.spec.fusion} {row.backend} {_so_far(of)}" for row, of in zip(rows, found, strict=True) if of
            )
            self.tell(f"process {number} of {times} of {_names(rows)}" + (f" ({so_far} so far)" if so_far else ""))
            live = [
                (row, of)
                for row, of in zip(rows, found, strict=True)
                if not any(isinstance(reading, Exception) for reading in of)
            ]
            with self.place.fresh([row for row, _ in live]) as started:
                running: list[tuple[list[LatencyReading | Exception], Isolated]] = []
                for (_, of), child in zip(live, started, strict=True):
                    if isinstance(child, Isolated):
                        running.append((of, child))
                    else:
                        of.append(child)
                if not running:
                    break
                results, disturbed = self._take_turns(
                    rows[0].spec.device,
                    [child for _, child in running],
                    [child.pid for _, child in running],
                    budget_s / times,
                    fewest_rounds=max(FEWEST_ROUNDS_EACH, FEWEST_ROUNDS // times),
                    moving=False,  # the next process lies elsewhere, and this one is to be as a user's is
                )
            disturbances = worst_of((disturbances, disturbed))
            for (of, _), result in zip(running, results, strict=True):
                of.append(result)
        for row, readings in zip(rows, found, strict=True):
            yield row, pooled(readings), disturbances

    def _take_turns(
        self, device: str, contestants: Sequence[Contestant], pids: Sequence[int], budget_s: float, **how: Any
    ) -> tuple[list[LatencyReading | Exception], dict[str, Disturbance]]:
        """Race the contestants; their readings or errors, and what disturbed all of them."""
        started = self._now()
        watch = Watch(device, pids)
        results = race(
            contestants,
            now=self._now,
            budget_s=budget_s,
            precision=self.options.precision,
            each_round=watch.look,
            **how,
        )
        self._spent_s += self._now() - started
        return results, watch.findings()

    def _now(self) -> float:
        """Seconds of wall time, without those that were spent waiting for a process that hung: they are nobody's."""
        now = self.clock.now if self.clock else time.perf_counter
        return now() - self.place.patience.lost_s


def _untimed(rows: Sequence[Row]) -> int:
    """How many have no times yet: the others run along, and have had their share of the budget."""
    return sum(not row.timed for row in rows)


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(dict.fromkeys(str(row.spec.fusion) for row in rows))


def _so_far(readings: Sequence[LatencyReading | Exception]) -> str:
    """What the processes so far say, as it is shown while the next are started."""
    times = (stats.median(reading.samples_s) for reading in readings if isinstance(reading, LatencyReading))
    return ", ".join(units.milliseconds(1e3 * time) for time in times) or "failed"
