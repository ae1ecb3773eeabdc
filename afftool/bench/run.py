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

from afftool.backends.compile import forget_compiled
from afftool.backends.workload import devices_random_state_kept
from afftool.bench.child import Patience
from afftool.bench.place import Here, Place
from afftool.bench.rows import Group, Row, blank, by_setting, compare, lacking, with_global_state
from afftool.console import Follow, nobody
from afftool.errors import LoadError, Rejected, SpecError
from afftool.failure import FailedError, Failure
from afftool.global_state import kept
from afftool.measure.cost.count import count, reached
from afftool.measure.cost.own_formulas import own_formulas
from afftool.measure.cost.reading import CUT_BY, Reach
from afftool.measure.time.conditions import Watch, instability
from afftool.measure.time.contestant import Clock
from afftool.measure.time.race import race
from afftool.record import Record
from afftool.spec import MODULE, CaseSpec
from afftool.spec.options import Options

HEAT_ROWS = 12
"""About as many rows are ready at a time; in processes of their own half as many, since each holds a whole torch."""


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
        return sum(len(group.specs) for group in self.groups) * max(1, len(self.backends))

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
                    fresh = [row for row in together if not row.timed]
                    self._race(together, group.baseline)
                    for row in fresh:
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
            rows = HEAT_ROWS if self.place.isolation == "none" else HEAT_ROWS // 2
            size = max(1, rows // len(self.backends) - 1)
            yield [*base, *others[:size]]
            others, base = others[size:], []

    def _alone(self, row: Row) -> Record:
        (again,) = self._enter(row.spec, (row.backend,))
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
            yield from self._enter(spec, self.backends)

    def _enter(self, spec: CaseSpec, backends: Iterable[str]) -> Iterator[Row]:
        """A row a backend, ready to be timed or failed."""
        self._tell(f"counting {spec.fusion}")
        cost = self._cost(spec)
        if cost.status != "ok":  # the case itself cannot be, and every backend would say the same
            for backend in backends:
                yield Row(spec, replace(cost, backend=backend))
            return
        here = Here(spec)
        for backend in backends:
            self._tell(f"preparing {spec.fusion} under {backend}")
            row = Row(spec, replace(cost, backend=backend))
            self.place.enter(row, here)
            self.ready += 1
            yield row

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
        ready = [(row, row.entrant) for row in rows if row.entrant is not None]
        if not ready:
            return []
        fresh = [row for row, _ in ready if not row.timed]
        left = max(1, self.total - self.done)
        budget_s = max(0.0, self.options.budget_s - self.spent_s) * len(fresh) / left
        self._tell("timing " + ", ".join(dict.fromkeys(str(row.spec.fusion) for row, _ in ready)))
        started = self._now()
        watch = Watch(rows[0].spec.device, [entrant.pid for _, entrant in ready if entrant.pid])
        with devices_random_state_kept(*{row.spec.device for row, entrant in ready if entrant.pid is None}):
            results = race(
                [entrant.contestant for _, entrant in ready],
                now=self._now,
                budget_s=budget_s,
                precision=self.options.precision,
                each_round=watch.look,
            )
        self.spent_s += self._now() - started
        disturbed = watch.findings()
        failed = []
        for (row, entrant), result in zip(ready, results, strict=True):
            if isinstance(result, Exception):
                failed.append((row, self.place.failure(row, result)))
                continue
            row.samples_s = result.samples_s
            if not row.timed:
                row.record = replace(
                    row.record,
                    instability=instability(result, self.options.precision, self.options.cache) | disturbed,
                    cache=self.options.cache,
                    isolation="none" if entrant.pid is None else "process",
                    **result.fields(row.spec.batch),
                )
        return failed

    def _now(self) -> float:
        """Seconds of wall time, without those that were spent waiting for a process that hung: they are nobody's."""
        now = self.clock.now if self.clock else time.perf_counter
        return now() - self.place.patience.lost_s
