"""Specs to records: a generator that measures cases and yields each record as soon as it is known.

Cases that share everything but the fusion form a group, and their times are taken in turns, backends included. Large
groups are raced in heats; the baseline runs in each, so that every row has a ratio from rounds it shared. Whatever
goes wrong with a row becomes its record, and the rest goes on.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from afftool.backends.compile import forget_compiled
from afftool.backends.workload import devices_random_state_kept
from afftool.bench.child import enter_child
from afftool.bench.entry import EagerOutputs, Entrant, enter
from afftool.bench.rows import Group, Row, blank, by_setting, compare
from afftool.build import Case, build_case
from afftool.console import Follow, nobody
from afftool.errors import LoadError, SpecError
from afftool.measure.cost.count import count
from afftool.measure.cost.own_formulas import own_formulas
from afftool.measure.time.conditions import Watch, instability
from afftool.measure.time.contestant import Clock, clock_for
from afftool.measure.time.race import race
from afftool.record import Isolation, Record
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
    return _Bench(options, groups, options.backends_on(devices), isolation, clock, follow).records()


@dataclass
class _Bench:
    options: Options
    groups: list[Group]
    backends: tuple[str, ...]
    isolation: Isolation
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
                    row.record = replace(row.record, **count(spec).fields)
                except (Exception, SystemExit) as error:
                    row.fail(error)
                    if self.backends and isinstance(error, LoadError):
                        # what runs neither on the meta device nor on the CPU may still run on this one
                        row.record = replace(row.record, status="ok", reason=f"not counted: {row.record.reason}")
            self._counted[spec.identity] = row.record
        return self._counted[spec.identity]

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
                    fresh = [row for row in (*base, *rows) if not row.timed]
                    self._race([*base, *rows], group.baseline)
                    yield from [row.record for row in fresh]
                    base = [row for row in base if not row.failed]
        for row in alone:
            yield self._alone(row)

    @property
    def _races(self) -> bool:
        return "latency" in self.options.measures

    def _heats(self, group: Group) -> list[list[CaseSpec]]:
        """The group's cases in heats, the baseline in front of the first; it takes a place in each."""
        rows = HEAT_ROWS if self.isolation == "none" else HEAT_ROWS // 2
        size = max(1, rows // len(self.backends) - 1)
        others = group.challengers
        heats = [others[i : i + size] for i in range(0, len(others), size)] or [[]]
        return [[group.baseline, *heats[0]], *heats[1:]] if group.baseline else heats

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
        if self.isolation == "process":
            return
        gc.collect()
        if any(name.startswith("compile") for name in self.backends):
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
        here = _Here(spec)
        for backend in backends:
            self._tell(f"preparing {spec.fusion} under {backend}")
            row = Row(spec, replace(cost, backend=backend))
            try:
                row.enter(self._child(row) if self.isolation == "process" else self._local(row, here))
            except (Exception, SystemExit) as error:
                row.fail(error)
                del error  # and with it the frames that hold what was allocated
                _free()
            self.ready += 1
            yield row

    def _local(self, row: Row, here: _Here) -> Entrant:
        return enter(
            here.case,
            row.record,
            eager=here.eager,
            measures=self.options.measures,
            clock=self.clock or clock_for(row.spec.device),
            cache=self.options.cache,
        )

    def _child(self, row: Row) -> Entrant:
        threads = torch.get_num_threads()
        return enter_child(
            row.spec, row.record, measures=self.options.measures, cache=self.options.cache, threads=threads
        )

    def _race(self, rows: list[Row], baseline: CaseSpec | None) -> None:
        """Time the rows in turns; those not timed before get their times, all their ratio to the baseline's."""
        entrants = [row.entrant for row in rows if row.entrant is not None]
        if not entrants:
            return
        now = self.clock.now if self.clock else time.perf_counter
        fresh = [row for row in rows if not row.timed]
        left = max(1, self.total - self.done)
        budget_s = max(0.0, self.options.budget_s - self.spent_s) * len(fresh) / left
        self._tell("timing " + ", ".join(dict.fromkeys(str(row.spec.fusion) for row in rows)))
        started = now()
        watch = Watch(rows[0].spec.device, [entrant.pid for entrant in entrants if entrant.pid])
        with devices_random_state_kept(rows[0].spec.device):
            results = race(
                [entrant.contestant for entrant in entrants],
                now=now,
                budget_s=budget_s,
                precision=self.options.precision,
                each_round=watch.look,
            )
        self.spent_s += now() - started
        disturbed = watch.findings()
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, Exception):
                row.fail(result)
                row.close()
                continue
            row.samples_s = result.samples_s
            if not row.timed:
                row.record = replace(
                    row.record,
                    instability=instability(result, self.options.precision, self.options.cache) | disturbed,
                    cache=self.options.cache,
                    isolation=self.isolation,
                    **result.fields(row.spec.batch),
                )
        if baseline is not None:
            compare(rows, baseline)


class _Here:
    """A case in this process: built, and run by eager, once for all of its backends and not before it is needed."""

    def __init__(self, spec: CaseSpec) -> None:
        self._spec = spec

    @cached_property
    def case(self) -> Case:
        return build_case(self._spec)

    @cached_property
    def eager(self) -> EagerOutputs:
        return EagerOutputs(self.case)


def _free() -> None:
    """Give back what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
