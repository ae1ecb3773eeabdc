"""Specs to records: a generator that measures cases and yields each record as soon as it is known.

Cases that share everything but the fusion form a group, and their times are taken in turns, backends included. Large
groups are raced in heats; the baseline runs in each, so that every row has a ratio from rounds it shared. Whatever
goes wrong with a row becomes its record, and the rest goes on: in other processes, if it took the device from this one.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from afftool import stats, units
from afftool.backends.compile import forget_compiled
from afftool.backends.workload import devices_random_state_kept
from afftool.bench.child import Isolated, Patience
from afftool.bench.place import Here, Place
from afftool.bench.rows import Group, Row, blank, by_setting, compare, lacking, with_global_state
from afftool.console import Follow, nobody
from afftool.errors import LoadError, Rejected, SpecError
from afftool.failure import FailedError, Failure
from afftool.global_state import kept
from afftool.measure.cost.count import count, reached
from afftool.measure.cost.own_formulas import own_formulas
from afftool.measure.cost.reading import CUT_BY, Reach
from afftool.measure.time.conditions import Disturbance, Watch, told
from afftool.measure.time.contestant import Clock, Contestant
from afftool.measure.time.processes import Pooled, pooled
from afftool.measure.time.race import FEWEST_ROUNDS, LatencyReading, race
from afftool.process import POSSIBLE
from afftool.record import Record
from afftool.spec import MODULE, CaseSpec
from afftool.spec.options import Options

HEAT_ROWS = 12
"""About as many rows are ready at a time; in processes of their own half as many, since each holds a whole torch."""
FEWEST_ROUNDS_EACH = 24
"""Rounds of each of several processes before precision may stop it, as `FEWEST_ROUNDS` is for one."""


def bench(
    cases: Iterable[CaseSpec],
    options: Options | None = None,
    *,
    clock: Clock | None = None,
    follow: Follow = nobody,
) -> Iterator[Record]:
    """Measure every case under every backend and yield a record each; cost alone gives one record a case.

    `clock` is the device's own unless given; `follow` hears how far it is, in rows (one that is ready to be timed is
    half done). Raises `SpecError` or `LoadError` before anything is measured.
    """
    options = options or Options()
    if "cost" in options.measures:
        own_formulas()
    groups = [Group.of(list(specs), options.baseline) for specs in by_setting(cases)]
    devices = [group.specs[0].device for group in groups]
    isolation = options.isolation_on(devices)
    if isolation == "process" and clock is not None:
        raise SpecError("a clock cannot be handed to other processes", hint='use isolate="none" with it')
    place = Place(options, isolation, clock, Patience(options.timeout_s))
    return _Bench(options, groups, options.backends_on(devices), place, clock, follow).records()


def processes_to_start(cases: Iterable[CaseSpec], options: Options) -> int:
    """How many fresh processes a bench of these cases will start for rows to be timed in."""
    groups = [Group.of(list(specs), options.baseline) for specs in by_setting(cases)]
    backends = options.backends_on([group.specs[0].device for group in groups])
    place = Place(options, options.isolation_on([group.specs[0].device for group in groups]), None, Patience(1.0))
    planned = _Bench(options, groups, backends, place, None, nobody)
    return sum(planned.starts(group) for group in groups)


@dataclass
class _Bench:
    options: Options
    groups: list[Group]
    backends: tuple[str, ...]
    place: Place
    clock: Clock | None
    follow: Follow
    done: int = 0
    ready: int = 0
    spent_s: float = 0.0
    _counted: dict[str, Record] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(
            len(group.specs) * len(self.options.regimes_on(group.specs[0].device)) for group in self.groups
        ) * max(1, len(self.backends))

    def starts(self, group: Group) -> int:
        """How many fresh processes its rows are timed in, the baseline's in each heat."""
        if "system" not in self.options.regimes_on(group.specs[0].device) or not self._fresh:
            return 0
        heats = list(self._heats(group))
        cases = sum(map(len, heats)) + (len(heats) - 1 if group.baseline else 0)
        return cases * len(self.backends) * self.options.processes

    @property
    def _fresh(self) -> bool:
        """Whether rows under the system's allocator have processes of their own; a clock cannot be handed to them."""
        return POSSIBLE and self.clock is None and self.options.isolate != "none"

    def records(self) -> Iterator[Record]:
        for group in self.groups:
            for record in self._group(group) if self.backends else self._costs(group):
                self.done += 1
                yield record
                self._tell("")

    def _tell(self, doing: str) -> None:
        waiting = max(0, self.ready - self.done)
        self.follow(min(self.total, self.done + waiting / 2), self.total, doing)

    def _costs(self, group: Group) -> Iterator[Record]:
        for spec in group.specs:
            self._tell(f"counting {spec.fusion}")
            yield self._cost(spec)

    def _cost(self, spec: CaseSpec) -> Record:
        """The record of a case before any backend: what it costs, if that is asked for and can be counted."""
        if spec.identity not in self._counted:
            row = Row(spec, blank(spec))
            if "cost" in self.options.measures:
                try:
                    with kept(spec.own_targets, "while it ran"):
                        reading = count(spec)
                    row.record = self._reached(spec, replace(row.record, **reading.fields), reading.reached)
                except (Exception, SystemExit) as error:
                    row.fail(error)
                    if self.backends and isinstance(error, LoadError):
                        # what runs neither on the meta device nor on the CPU may still run on this one
                        row.record = replace(row.record, status="ok", reason=f"not counted: {row.record.reason}")
            elif spec.mode == "train":
                with contextlib.suppress(Exception, SystemExit), kept(spec.own_targets, "while it ran"):
                    row.record = self._reached(spec, row.record, reached(spec))
            self._counted[spec.identity] = with_global_state(spec, row.record)
        return self._counted[spec.identity]

    def _reached(self, spec: CaseSpec, record: Record, found: Reach) -> Record:
        """The record, failed where nothing can be trained, with what a gradient does not reach where only part can."""
        if spec.mode != "train":
            return record
        if cut := found.cut(input_gradients=spec.host == MODULE):
            return replace(record, status="failed", reason=Failure.of(Rejected(cut, hint=CUT_BY)).reason)
        ignored = found.ignored_inputs if spec.host == MODULE else found.ignored_parameters
        return lacking(record, f"no gradient reaches {ignored}" if ignored else None)

    def _group(self, group: Group) -> Iterator[Record]:
        """The group's rows, heat by heat.

        The baseline's rows are made in the first heat and stay ready until the last, so that each heat has something to
        be compared with; all others are let go after theirs. What did not fit into memory beside its neighbours is
        tried once more alone, when nobody holds any.
        """
        base: list[Row] = []
        alone: list[Row] = []
        with ExitStack() as to_the_end:
            to_the_end.callback(self._clean_up)
            for specs in self._heats(group):
                with ExitStack() as heat:
                    rows: list[Row] = []
                    for row in self._entered(specs):
                        stays = row.spec is group.baseline
                        (to_the_end if stays else heat).callback(row.close)
                        if row.record.status == "oom" and (base or rows):
                            alone.append(row)
                        elif row.failed or not self._races:
                            yield row.record
                            row.close()
                        else:
                            (base if stays else rows).append(row)
                    together = [*base, *rows]
                    untimed = [row for row in together if not row.timed]
                    self._race(together, group.baseline)
                    for row in untimed:
                        if row.record.status == "oom" and len(together) > 1:
                            alone.append(row)
                        else:
                            yield row.record
                    base = [row for row in base if not row.failed]
        for row in alone:
            yield self._alone(row)

    @property
    def _races(self) -> bool:
        return "latency" in self.options.measures

    def _heats(self, group: Group) -> Iterator[list[CaseSpec]]:
        """The group's cases in heats, the baseline in front of the first; it takes a place in each."""
        others, base = group.challengers, [group.baseline] if group.baseline else []
        while base or others:
            alone = self.place.isolation == "process" or self._fresh
            size = max(1, (HEAT_ROWS // 2 if alone else HEAT_ROWS) // len(self.backends) - 1)
            yield [*base, *others[:size]]
            others, base = others[size:], []

    def _alone(self, row: Row) -> Record:
        (again,) = self._enter(row.spec, (row.backend,), (row.known.allocator,))
        try:
            if not again.failed and self._races:
                self._race([again], None)
            return again.record
        finally:
            again.close()
            self._clean_up()

    def _clean_up(self) -> None:
        """Free what a group held, in this process."""
        if self.place.isolation == "process":
            return
        gc.collect()
        if any(name.startswith("compile") for name in self.backends):
            with contextlib.suppress(Exception):  # it waits for devices, and is nobody's result
                forget_compiled()

    def _entered(self, specs: Iterable[CaseSpec]) -> Iterator[Row]:
        for spec in specs:
            yield from self._enter(spec, self.backends, self.options.regimes_on(spec.device))

    def _enter(self, spec: CaseSpec, backends: Iterable[str], regimes: Sequence[str | None]) -> Iterator[Row]:
        """A row a backend and regime, ready to be timed or failed."""
        self._tell(f"counting {spec.fusion}")
        cost = self._cost(spec)
        if cost.status != "ok":  # the case itself cannot be, and every backend would say the same
            for backend in backends:
                yield from (Row(spec, replace(cost, backend=backend, allocator=regime)) for regime in regimes)
            return
        here = Here(spec)
        for backend in backends:
            self._tell(f"preparing {spec.fusion} under {backend}")
            rows = [
                Row(spec, replace(cost, backend=backend, allocator=regime), fresh=self._fresh and regime == "system")
                for regime in regimes
            ]
            entered: Row | None = None
            for row in reversed(rows):  # one that stays ready in this process first: the other needs it but once
                if entered is None or not row.fresh:
                    self.place.enter(row, here)
                    entered = None if row.failed else row
                else:
                    row.enter_as(entered)
            self.ready += len(rows)
            yield from rows

    def _race(self, rows: Sequence[Row], baseline: CaseSpec | None) -> None:
        """Time the rows in turns; those not timed before get their times, all their ratio to the baseline's.

        If this process loses the device on the way, none of them is to blame yet: all are made ready again, each in a
        process of its own, and timed anew.
        """
        self.place.enter_lost(rows)
        spent_s = self.spent_s
        failed = self._time(rows)
        if failed:
            self.place.recover(rows[0].spec.device)
            if self.place.enter_lost(rows):
                self.spent_s = spent_s
                failed = self._time(rows)
        for row, error in failed:
            row.fail(error)
            row.close()
        if baseline is not None:
            compare(rows, baseline)

    def _time(self, rows: Sequence[Row]) -> list[tuple[Row, FailedError]]:
        """Time those of the rows that are ready; the ones that failed, with why."""
        here = [row for row in rows if row.entrant is not None]
        fresh = [row for row in rows if row.fresh and row.ready]
        budget_s = max(0.0, self.options.budget_s - self.spent_s) / max(1, self.total - self.done)
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

    def _time_here(self, rows: Sequence[Row], budget_s: float) -> Iterator[_Timing]:
        """Time rows that are ready, in turns."""
        self._tell("timing " + _names(rows))
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

    def _time_fresh(self, rows: Sequence[Row], budget_s: float) -> Iterator[_Timing]:
        """Time each row in several fresh processes, the first of all in turns, then the second of all, and so on."""
        times = self.options.processes
        found: list[list[LatencyReading | Exception]] = [[] for _ in rows]
        disturbances: dict[str, Disturbance] = {}
        for number in range(1, times + 1):
            told = "; ".join(
                f"{row.spec.fusion} {row.backend} {_so_far(of)}" for row, of in zip(rows, found, strict=True) if of
            )
            self._tell(f"process {number} of {times} of {_names(rows)}" + (f" ({told} so far)" if told else ""))
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
            disturbances |= disturbed
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
        self.spent_s += self._now() - started
        return results, watch.findings()

    def _now(self) -> float:
        """Seconds of wall time, without those that were spent waiting for a process that hung: they are nobody's."""
        now = self.clock.now if self.clock else time.perf_counter
        return now() - self.place.patience.lost_s


_Timing = tuple[Row, "Pooled | Exception", dict[str, Disturbance]]
"""A row, what its processes say together or what went wrong, and what disturbed all that were timed with it."""


def _untimed(rows: Sequence[Row]) -> int:
    """How many have no times yet: the others run along, and have had their share of the budget."""
    return sum(not row.timed for row in rows)


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(dict.fromkeys(str(row.spec.fusion) for row in rows))


def _so_far(readings: Sequence[LatencyReading | Exception]) -> str:
    """What the processes so far say, as it is shown while the next are started."""
    times = (stats.median(reading.samples_s) for reading in readings if isinstance(reading, LatencyReading))
    return ", ".join(units.milliseconds(1e3 * time) for time in times) or "failed"
