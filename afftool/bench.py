"""Specs to records: a generator that measures cases and yields each record as soon as it is known.

Cases that share everything but the fusion form a group, and their times are taken in turns, backends included. Large
groups are raced in heats; the baseline runs in each, so that every row has a ratio from rounds it shared. Whatever
goes wrong with a row becomes its record, and the rest goes on.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from afftool import catalog, registry
from afftool.errors import LoadError, SpecError
from afftool.grouping import Group, by_setting
from afftool.record import Record
from afftool.row import Row, compare, to_record
from afftool.spec import CaseSpec, FusionSpec
from afftool.sweep import DEFAULT_BASELINE

BUDGET_S = 10.0
HEAT_ROWS = 12
"""About as many rows are ready at a time; in processes of their own half as many, since each holds a whole torch."""

Isolation = Literal["auto", "none", "process"]
Cache = Literal["warm", "cold"]


@dataclass(frozen=True)
class Progress:
    """How far a bench is: rows done (one that is ready to be timed is half done), rows in all, what is done now."""

    done: float
    total: int
    doing: str


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure; see `bench`."""

    backends: tuple[str, ...]
    measures: tuple[str, ...]
    budget_s: float
    precision: float
    isolation: Literal["none", "process"]
    cache: Cache
    clock: Any = None
    progress: Callable[[Progress], None] = lambda progress: None


def bench(
    cases: Iterable[CaseSpec],
    *,
    backends: Sequence[str] = ("eager",),
    measures: Sequence[str] = ("cost", "latency", "memory"),
    budget_s: float = BUDGET_S,
    precision: float = 0.01,
    baseline: FusionSpec | str | None = DEFAULT_BASELINE,
    isolate: Isolation = "auto",
    cache: Cache = "warm",
    clock: Any = None,
    progress: Callable[[Progress], None] | None = None,
) -> Iterator[Record]:
    """Measure every case under every backend and yield a record each; cost alone gives one record a case.

    `budget_s` are the seconds of warm-up and sampling for the whole bench, shared by its rows; compiling is not in it.
    Sampling stops earlier where every median's 95% interval is within `precision`. The `baseline` is measured along
    with every group that lacks it. `isolate` runs each row in a process of its own; `auto` does so where compiling
    or capturing for CUDA could disturb a neighbour's memory. `cache="cold"` empties the caches before every timed
    step. `clock` (`afftool.measure.clock.Clock`) is the device's own unless given. Raises `UnknownName`
    or `SpecError` before anything is measured.
    """
    for name in backends:
        if name not in catalog.BACKENDS:
            raise registry.unknown("backend", name, catalog.BACKENDS)
    for name in measures:
        if name not in catalog.MEASURES:
            raise registry.unknown("measure", name, catalog.MEASURES)
    if budget_s <= 0 or not 0 < precision < 1:
        raise SpecError("the budget must be above 0 and the precision between 0 and 1")
    if isinstance(baseline, str):
        baseline = FusionSpec.parse(baseline)
    groups = [Group.of(list(specs), baseline) for specs in by_setting(cases)]
    timed = bool({"latency", "memory", "energy"} & set(measures))
    isolation = _isolation(isolate, [g.specs[0].device for g in groups], backends) if timed else "none"
    if isolation == "process" and clock is not None:
        raise SpecError("a clock cannot be handed to other processes", hint='use isolate="none" with it')
    options = Options(
        backends=tuple(dict.fromkeys(backends)) if timed else (),
        measures=tuple(measures),
        budget_s=budget_s,
        precision=precision,
        isolation=isolation,
        cache=cache,
        clock=clock,
        progress=progress or (lambda progress: None),
    )
    return _Bench(options, groups).records()


def _isolation(wish: Isolation, devices: Collection[str], backends: Collection[str]) -> Literal["none", "process"]:
    if wish != "auto":
        return wish
    disturbing = any(name != "eager" for name in backends)
    return "process" if disturbing and any(device.startswith("cuda") for device in devices) else "none"


@dataclass
class _Bench:
    options: Options
    groups: list[Group]
    done: int = 0
    ready: int = 0
    spent_s: float = 0.0
    _costs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(len(group.specs) for group in self.groups) * max(1, len(self.options.backends))

    def records(self) -> Iterator[Record]:
        for group in self.groups:
            for record in self._group(group) if self.options.backends else self._counted(group):
                self.done += 1
                yield record
                self._tell("")

    def _tell(self, doing: str) -> None:
        waiting = max(0, self.ready - self.done)
        self.options.progress(Progress(min(self.total, self.done + waiting / 2), self.total, doing))

    def _counted(self, group: Group) -> Iterator[Record]:
        for spec in group.specs:
            self._tell(f"counting {spec.fusion}")
            yield to_record(spec, None, self._cost(spec))

    def _cost(self, spec: CaseSpec) -> dict[str, Any]:
        if "cost" not in self.options.measures:
            return {}
        if spec.identity not in self._costs:
            from afftool.measure import cost

            row = Row(spec, "", {})
            try:
                row.fields |= cost.count(spec).fields
            except (Exception, SystemExit) as error:
                row.fail(error)
                if self.options.backends and isinstance(error, LoadError):
                    # what runs neither on the meta device nor on the CPU may still run on this one
                    row.fields = {"reason": f"not counted: {row.fields['reason']}"}
            fields = row.fields
            self._costs[spec.identity] = fields
        return dict(self._costs[spec.identity])

    def _group(self, group: Group) -> Iterator[Record]:
        """The group's rows, heat by heat; what did not fit in beside its neighbours is tried once more alone."""
        kept: list[Row] = []
        alone: list[Row] = []
        try:
            for number, heat in enumerate(self._heats(group)):
                rows: list[Row] = []
                try:
                    specs = [group.baseline, *heat] if group.baseline and number == 0 else heat
                    for spec in specs:
                        for row in self._enter(spec):
                            if row.fields.get("status") == "oom" and (kept or rows):
                                alone.append(row)
                            elif row.failed or not self._races:
                                yield self._finish(row)
                                row.close()
                            else:
                                (kept if spec is group.baseline else rows).append(row)
                    self._race([*kept, *rows], group.baseline)
                    finished = [*(kept if number == 0 else []), *rows]
                    yield from [self._finish(row) for row in finished]
                    kept = [row for row in kept if not row.failed]
                finally:
                    for row in rows:
                        row.close()
        finally:
            for row in kept:
                row.close()
            self._clean_up()
        for row in alone:
            yield self._alone(row)

    @property
    def _races(self) -> bool:
        return "latency" in self.options.measures

    def _heats(self, group: Group) -> list[list[CaseSpec]]:
        rows = HEAT_ROWS if self.options.isolation == "none" else HEAT_ROWS // 2
        size = max(1, rows // len(self.options.backends) - 1)
        others = group.challengers
        return [others[i : i + size] for i in range(0, len(others), size)] or [[]]

    def _alone(self, row: Row) -> Record:
        (again,) = self._enter(row.spec, (row.backend,))
        try:
            if not again.failed and self._races:
                self._race([again], None)
            return self._finish(again)
        finally:
            again.close()
            self._clean_up()

    def _clean_up(self) -> None:
        """Free what a group held, in this process."""
        if self.options.isolation == "process":
            return
        gc.collect()
        if any(name.startswith("compile") for name in self.options.backends):
            from afftool.backends.compile import forget_compiled

            forget_compiled()

    def _enter(self, spec: CaseSpec, backends: Sequence[str] = ()) -> Iterator[Row]:
        """A row a backend, ready to be timed or failed."""
        from afftool.entry import Reference

        self._tell(f"counting {spec.fusion}")
        cost = self._cost(spec)
        if "status" in cost:  # the case itself cannot be, and every backend would say the same
            for backend in backends or self.options.backends:
                yield Row(spec, backend, dict(cost))
            return
        case = reference = None
        for backend in backends or self.options.backends:
            self._tell(f"preparing {spec.fusion} under {backend}")
            row = Row(spec, backend, dict(cost))
            try:
                if self.options.isolation == "process":
                    row.entry = self._child(spec, backend)
                else:
                    if case is None:
                        from afftool.build import build_case

                        case = build_case(spec)
                        reference = Reference(case)
                    row.entry = self._local(case, backend, reference)
                row.take(row.entry.fields)
            except (Exception, SystemExit) as error:
                row.fail(error)
                del error
                _free()
            self.ready += 1
            yield row

    def _local(self, case: Any, backend: str, reference: Any) -> Any:
        from afftool.entry import enter
        from afftool.measure.clock import clock_for

        return enter(
            case,
            backend,
            reference=reference,
            measures=self.options.measures,
            clock=self.options.clock or clock_for(case.spec.device),
            cache=self.options.cache,
        )

    def _child(self, spec: CaseSpec, backend: str) -> Any:
        import torch

        from afftool.entry import Entry
        from afftool.isolate import Isolated

        child = Isolated(
            spec,
            backend,
            measures=self.options.measures,
            cache=self.options.cache,
            threads=torch.get_num_threads(),
        )
        return Entry(child, child.fields, child.close, child.pid)

    def _race(self, rows: list[Row], baseline: CaseSpec | None) -> None:
        """Time the rows in turns and give each its fields."""
        if not rows:
            return
        from afftool.backends.workload import devices_random_state_kept
        from afftool.measure.conditions import Watch
        from afftool.measure.latency import race
        from afftool.measure.stability import instability

        now = self.options.clock.now if self.options.clock else _wall_time()
        new = {id(row) for row in rows if "samples_ms" not in row.fields}
        left = max(1, self.total - self.done)
        budget_s = max(0.0, self.options.budget_s - self.spent_s) * len(new) / left
        self._tell("timing " + ", ".join(dict.fromkeys(str(row.spec.fusion) for row in rows)))
        started = now()
        watch = Watch(rows[0].spec.device, [row.entry.pid for row in rows if row.entry.pid])
        with devices_random_state_kept(rows[0].spec.device):
            results = race(
                [row.entry.contestant for row in rows],
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
            row.samples = result.samples_s
            if id(row) in new:
                row.fields |= result.fields(row.spec.batch)
                row.fields["instability"] = instability(result, self.options.precision, self.options.cache) | disturbed
                row.fields |= {"cache": self.options.cache, "isolation": self.options.isolation}
        if baseline is not None:
            compare(rows, baseline)

    def _finish(self, row: Row) -> Record:
        return to_record(row.spec, row.backend, row.fields)


def _free() -> None:
    """Give back what a failed attempt held."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _wall_time() -> Callable[[], float]:
    import time

    return time.perf_counter
