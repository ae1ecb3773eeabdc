"""Specs to records: a generator that measures cases and yields each record as soon as it is known.

Cases that share everything but the fusion form a group, and their times are taken in turns, backends included. Large
groups are raced in heats; the baseline runs in each, so that every row has a ratio from rounds it shared. Whatever
goes wrong with a row becomes its record, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from afftool import catalog, registry, stats
from afftool.errors import AfftoolError, LoadError, SpecError
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec
from afftool.sweep import DEFAULT_BASELINE, baseline_of

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
    groups = [_Group.of(list(specs), baseline) for specs in _by_setting(cases)]
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


def _by_setting(cases: Iterable[CaseSpec]) -> list[list[CaseSpec]]:
    """The cases in groups that differ in nothing but the fusion, in the order they were given, each once."""
    groups: dict[Any, dict[str, CaseSpec]] = {}
    for case in cases:
        fields = {f.name: getattr(case, f.name) for f in dataclasses.fields(case) if f.name != "fusion"}
        groups.setdefault((*fields.values(), case.fusion.inputs), {})[case.fusion.text] = case
    return [list(group.values()) for group in groups.values()]


def _isolation(wish: Isolation, devices: Collection[str], backends: Collection[str]) -> Literal["none", "process"]:
    if wish != "auto":
        return wish
    disturbing = any(name != "eager" for name in backends)
    return "process" if disturbing and any(device.startswith("cuda") for device in devices) else "none"


@dataclass(frozen=True)
class _Group:
    """Cases that differ in nothing but the fusion; `baseline` is the one the others are compared with."""

    specs: tuple[CaseSpec, ...]
    baseline: CaseSpec | None

    @classmethod
    def of(cls, specs: list[CaseSpec], baseline: FusionSpec | None) -> _Group:
        """The group with its baseline in front, added if it is missing and possible."""
        if baseline is None:
            return cls(tuple(specs), None)
        fusion = baseline_of(specs[0].fusion, baseline)
        found = next((spec for spec in specs if spec.fusion.text == fusion.text), None)
        if found is None:
            try:
                found = dataclasses.replace(specs[0], fusion=fusion)
            except AfftoolError:
                return cls(tuple(specs), None)
        return cls((found, *(spec for spec in specs if spec is not found)), found)

    @property
    def challengers(self) -> list[CaseSpec]:
        return [spec for spec in self.specs if spec is not self.baseline]


@dataclass
class _Row:
    """A case under a backend on its way to a record: an entry while it can be timed, the fields found so far."""

    spec: CaseSpec
    backend: str
    fields: dict[str, Any]
    entry: Any = None
    samples: tuple[float, ...] = ()

    @property
    def failed(self) -> bool:
        return bool(self.fields.get("status", "ok") != "ok")

    def fail(self, error: BaseException) -> None:
        from afftool.entry import outcome

        status, reason = outcome(error)
        self.fields |= {"status": status, "reason": reason}

    def close(self) -> None:
        if self.entry is not None:
            with contextlib.suppress(Exception):  # what failed may fail again
                self.entry.close()
            self.entry = None


@dataclass
class _Bench:
    options: Options
    groups: list[_Group]
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

    def _counted(self, group: _Group) -> Iterator[Record]:
        for spec in group.specs:
            self._tell(f"counting {spec.fusion}")
            yield _record(spec, None, self._cost(spec))

    def _cost(self, spec: CaseSpec) -> dict[str, Any]:
        if "cost" not in self.options.measures:
            return {}
        if spec.identity not in self._costs:
            from afftool.measure import cost

            row = _Row(spec, "", {})
            try:
                row.fields |= cost.count(spec).fields
            except Exception as error:
                row.fail(error)
                if self.options.backends and isinstance(error, LoadError):
                    # what runs neither on the meta device nor on the CPU may still run on this one
                    row.fields = {"reason": f"not counted: {row.fields['reason']}"}
            fields = row.fields
            self._costs[spec.identity] = fields
        return dict(self._costs[spec.identity])

    def _group(self, group: _Group) -> Iterator[Record]:
        """The group's rows, heat by heat; what did not fit in beside its neighbours is tried once more alone."""
        kept: list[_Row] = []
        alone: list[_Row] = []
        try:
            for number, heat in enumerate(self._heats(group)):
                rows: list[_Row] = []
                try:
                    specs = [group.baseline, *heat] if group.baseline and number == 0 else heat
                    for spec in specs:
                        for row in self._enter(spec, held=bool(kept or rows)):
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

    def _heats(self, group: _Group) -> list[list[CaseSpec]]:
        rows = HEAT_ROWS if self.options.isolation == "none" else HEAT_ROWS // 2
        size = max(1, rows // len(self.options.backends) - 1)
        others = group.challengers
        return [others[i : i + size] for i in range(0, len(others), size)] or [[]]

    def _alone(self, row: _Row) -> Record:
        (again,) = self._enter(row.spec, held=False, backends=(row.backend,))
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

    def _enter(self, spec: CaseSpec, *, held: bool, backends: Sequence[str] = ()) -> Iterator[_Row]:
        """A row a backend, ready to be timed or failed."""
        from afftool.entry import Reference

        self._tell(f"counting {spec.fusion}")
        cost = self._cost(spec)
        if "status" in cost:  # the case itself cannot be, and every backend would say the same
            for backend in backends or self.options.backends:
                yield _Row(spec, backend, dict(cost))
            return
        case = reference = None
        for backend in backends or self.options.backends:
            self._tell(f"preparing {spec.fusion} under {backend}")
            row = _Row(spec, backend, dict(cost))
            try:
                if self.options.isolation == "process":
                    row.entry = self._child(spec, backend)
                else:
                    if case is None:
                        from afftool.build import build_case

                        case = build_case(spec)
                        reference = Reference(case)
                    row.entry = self._local(case, backend, reference)
                row.fields |= row.entry.fields
            except Exception as error:
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
        from afftool.isolate import Child

        child = Child(
            spec,
            backend,
            measures=self.options.measures,
            cache=self.options.cache,
            threads=torch.get_num_threads(),
        )
        return Entry(child, child.fields, child.close, child.pid)

    def _race(self, rows: list[_Row], baseline: CaseSpec | None) -> None:
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
                row.fields["instability"] = instability(result, self.options.precision) | disturbed
                row.fields |= {"cache": self.options.cache, "isolation": self.options.isolation}
        if baseline is not None:
            _compare(rows, baseline)

    def _finish(self, row: _Row) -> Record:
        return _record(row.spec, row.backend, row.fields)


def _compare(rows: Sequence[_Row], baseline: CaseSpec) -> None:
    """Give each row its ratio to the baseline's under the same backend, from the rounds they shared."""
    bases = {row.backend: row for row in rows if row.spec is baseline and row.samples and not row.failed}
    for row in rows:
        base = bases.get(row.backend)
        if base is None or row.failed or not row.samples:
            continue
        row.fields["baseline"] = baseline.fusion.text
        if row is base:
            row.fields |= {"latency_ratio": 1.0}
            continue
        ratio = stats.paired_ratio(row.samples, base.samples)
        if ratio is not None:
            row.fields |= {
                "latency_ratio": ratio.estimate,
                "latency_ratio_low": ratio.low,
                "latency_ratio_high": ratio.high,
            }


def _record(spec: CaseSpec, backend: str | None, fields: dict[str, Any]) -> Record:
    size = (None,) * (3 - len(spec.size)) + spec.size
    depth, height, width = (None, None, spec.size[0]) if len(spec.size) == 1 else size
    host = catalog.HOSTS.get(spec.host.name)
    return Record(
        fusion=spec.fusion.text,
        host=spec.host.text,
        scenario=host.scenario if host else None,
        backend=backend,
        mode=spec.mode,
        device=spec.device,
        dtype=spec.dtype,
        memory_format=spec.memory_format,
        batch=spec.batch,
        channels=spec.channels,
        depth=depth,
        height=height,
        width=width,
        identity=spec.identity,
        **fields,
    )


def _free() -> None:
    """Give back what a failed attempt held."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _wall_time() -> Callable[[], float]:
    import time

    return time.perf_counter
