"""Specs to records: a generator that measures cases and yields each record as soon as it is known.

Cases that share everything but the fusion form a group, and their times are taken in turns, backends included. Large
groups are raced in heats; the baseline runs in each, so that every row has a ratio from rounds it shared. Whatever
goes wrong with a row becomes its record, and the rest goes on: in other processes, if it took the device from this one.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace

from afftool.backends.compile import forget_compiled
from afftool.bench.child import Patience
from afftool.bench.costs import Costs
from afftool.bench.elsewhere import Elsewhere
from afftool.bench.place import Here, Place
from afftool.bench.rows import Group, Row, by_setting
from afftool.bench.timing import Timing
from afftool.console import Follow, nobody
from afftool.errors import SpecError
from afftool.measure.cost.own_formulas import own_formulas
from afftool.measure.time.contestant import Clock
from afftool.process import POSSIBLE
from afftool.record import Record
from afftool.room import free_bytes, least_of_both
from afftool.spec import CaseSpec
from afftool.spec.options import Options

HEAT_ROWS = 12
"""About as many rows are ready at a time; in processes of their own half as many, since each holds a whole torch."""


def bench(
    cases: Iterable[CaseSpec],
    options: Options | None = None,
    *,
    clock: Clock | None = None,
    follow: Follow = nobody,
    elsewhere: Elsewhere | None = None,
) -> Iterator[Record]:
    """Measure every case under every backend and yield a record each; cost alone gives one record a case.

    `clock` is the device's own unless given; `follow` hears how far it is, in rows (one that is ready to be timed is
    half done). With `isolate="process"` modules of the user's own are counted `elsewhere`, which may have been asked of
    them before. Raises `SpecError` or `LoadError` before anything is measured.
    """
    options, cases = options or Options(), list(cases)
    if "cost" in options.measures:
        # With `isolate="process"` no file of the user's runs here: a function that is not there is told by its row.
        own_formulas(load=options.isolate != "process" and any(case.own_targets for case in cases))
    return _planned(cases, options, clock, follow, elsewhere).records()


def processes_to_start(cases: Iterable[CaseSpec], options: Options) -> int:
    """How many fresh processes a bench of these cases will start for rows to be timed in."""
    planned = _planned(cases, options, None, nobody)
    return sum(planned.starts(group) for group in planned.groups)


def _planned(
    cases: Iterable[CaseSpec],
    options: Options,
    clock: Clock | None,
    follow: Follow,
    elsewhere: Elsewhere | None = None,
) -> _Bench:
    groups = [Group.of(list(specs), options.baseline) for specs in by_setting(cases)]
    devices = [group.device for group in groups]
    isolation = options.isolation_on(devices)
    if isolation == "process" and clock is not None:
        raise SpecError("a clock cannot be handed to other processes", hint='use isolate="none" with it')
    place = Place(options, isolation, clock, Patience(options.timeout_s))
    if options.isolate == "process" and elsewhere is None:
        elsewhere = Elsewhere(options.timeout_s)
    return _Bench(options, groups, options.backends_on(devices), place, clock, follow, elsewhere)


@dataclass
class _Bench:
    options: Options
    groups: list[Group]
    backends: tuple[str, ...]
    place: Place
    clock: Clock | None
    follow: Follow
    elsewhere: Elsewhere | None
    done: int = 0
    ready: int = 0

    def __post_init__(self) -> None:
        self._costs = Costs(self.options.measures, bool(self.backends), self.elsewhere)
        self._timing = Timing(self.options, self.place, self.clock, self._tell)

    @property
    def total(self) -> int:
        rows = sum(len(group.specs) * len(self.options.regimes_on(group.device)) for group in self.groups)
        return rows * max(1, len(self.backends))

    def starts(self, group: Group) -> int:
        """How many fresh processes its rows are timed in, the baseline's in each heat."""
        if not self._fresh(group.device):
            return 0
        heats = list(self._heats(group))
        cases = sum(map(len, heats)) + (len(heats) - 1 if group.baseline else 0)
        return cases * len(self.backends) * self.options.processes

    def _fresh(self, device: str) -> bool:
        """Whether rows under the system's allocator have processes of their own; a clock cannot be handed to them."""
        possible = POSSIBLE and self.clock is None and self.options.isolate != "none"
        return possible and "system" in self.options.regimes_on(device)

    def records(self) -> Iterator[Record]:
        with closing(self.elsewhere) if self.elsewhere else nullcontext():
            for group in self.groups:
                for record in self._group(group) if self.backends else self._counted(group):
                    self.done += 1
                    yield record
                    self._tell("")

    def _tell(self, doing: str) -> None:
        waiting = max(0, self.ready - self.done)
        self.follow(min(self.total, self.done + waiting / 2), self.total, doing)

    def _counted(self, group: Group) -> Iterator[Record]:
        for spec in group.specs:
            self._tell(f"counting {spec.fusion}")
            yield self._costs.of(spec)

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
                    self._time(together, group.baseline)
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
            alone = self.place.isolation == "process" or self._fresh(group.device)
            size = max(1, min(HEAT_ROWS // 2 if alone else HEAT_ROWS, self._fitting(group)) // len(self.backends) - 1)
            yield [*base, *others[:size]]
            others, base = others[size:], []

    @staticmethod
    def _fitting(group: Group) -> int:
        """How many of its rows fit into memory at a time, as far as it is known: smaller heats keep their baseline."""
        free = free_bytes(group.device)
        return HEAT_ROWS if free is None else free // max(least_of_both(spec).nbytes for spec in group.specs)

    def _alone(self, row: Row) -> Record:
        (again,) = self._enter(row.spec, (row.backend,), (row.known.allocator,))
        try:
            if not again.failed and self._races:
                self._time([again], None)
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
        cost = self._costs.of(spec)
        if cost.status != "ok":  # the case itself cannot be, and every backend would say the same
            for backend in backends:
                yield from (Row(spec, replace(cost, backend=backend, allocator=regime)) for regime in regimes)
            return
        here = Here(spec)
        for backend in backends:
            self._tell(f"preparing {spec.fusion} under {backend}")
            rows = [
                Row(
                    spec,
                    replace(cost, backend=backend, allocator=regime),
                    fresh=regime == "system" and self._fresh(spec.device),
                )
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

    def _time(self, rows: Sequence[Row], baseline: CaseSpec | None) -> None:
        self._timing.time(rows, baseline, rows_left=self.total - self.done)
