"""`afftool bench`: measure fusions, store every record as it comes, and print the comparison.

What can be wrong with the words is found before torch is imported; see `afftool.sweep`.
"""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from afftool import catalog, console
from afftool.cli import options
from afftool.device import check_device, resolve_device
from afftool.errors import NothingMeasured, SpecError
from afftool.registry import load, unknown
from afftool.spec import split_list
from afftool.sweep import DEFAULT_BASELINE, Plan, Words, plan

if TYPE_CHECKING:
    from afftool.measure.bounds import Bounds
    from afftool.record import Environment, Record, Run
    from afftool.report.breakdown import Breakdown
    from afftool.report.model import Table
    from afftool.store import Store

MEASURES = ["cost", "latency", "memory"]


def bench(
    fusion: options.Fusions,
    host: options.Hosts = None,
    channels: options.Channels = None,
    size: options.Sizes = None,
    batch: options.Batches = None,
    backend: options.Backends = None,
    mode: options.Modes = None,
    device: options.Device = "auto",
    dtype: options.Dtypes = None,
    memory_format: options.MemoryFormats = None,
    measure: Annotated[
        list[str] | None,
        typer.Option("--measure", "-m", help="cost, latency, memory, energy [default: all]. Lists."),
    ] = None,
    budget: Annotated[float, typer.Option("--budget", help="Seconds of sampling for the whole bench.")] = 10.0,
    precision: Annotated[
        float, typer.Option("--precision", help="Stop when the 95% interval of the median is within this share.")
    ] = 0.01,
    isolate: Annotated[
        Literal["auto", "none", "process"],
        typer.Option("--isolate", help="process: each row in a process of its own; auto: where it disturbs others."),
    ] = "auto",
    cache: Annotated[
        Literal["warm", "cold"], typer.Option("--cache", help="cold: the caches are emptied before every timed step.")
    ] = "warm",
    explain: Annotated[
        bool, typer.Option("--explain", help="Also: every operator, its formula, and what other counters say of it.")
    ] = False,
    per_module: Annotated[
        bool, typer.Option("--per-module", help="Also: the cost of every module, and what it saves for backward.")
    ] = False,
    baseline: options.Baseline = DEFAULT_BASELINE,
    threads: options.Threads = None,
    out: options.Out = None,
    formats: options.Formats = None,
    as_json: options.Json = False,
    store: options.StorePath = options.STORE,
) -> None:
    """Measure what fusions cost: parameters, MACs, bytes, latency, memory.

    Every option that takes lists makes a sweep: all combinations are measured, and those that cannot be are listed
    with the reason. Each record is stored the moment it exists.
    """
    planned = plan(
        Words(
            fusion=fusion,
            host=host or (),
            channels=channels or (),
            size=size or (),
            batch=batch or (),
            mode=mode or (),
            dtype=dtype or (),
            memory_format=memory_format or (),
            baseline=baseline,
        )
    )
    request = _Request(
        backends=_known("backend", backend or [], catalog.BACKENDS),  # empty: decided when the device is known
        measures=_known("measure", measure or MEASURES, catalog.MEASURES),
        device=check_device(device),
        budget_s=budget,
        precision=precision,
        isolate=isolate,
        cache=cache,
        threads=threads,
        as_json=as_json,
    )
    if budget <= 0 or not 0 < precision < 1:
        raise SpecError("--budget must be above 0 and --precision between 0 and 1", hint="for example --budget 30")

    from afftool.formats import destinations, renderer, write
    from afftool.report import bench_report
    from afftool.report.breakdown import breakdown_document, breakdown_tables
    from afftool.store import Store

    wanted = split_list(formats or [])
    files = destinations(out, wanted, stem="bench")
    with console.stdout_kept(as_json):
        with Store.open(store) as opened:
            run = _measure(planned, request, opened)
        found = _breakdowns(planned, request, explain=explain, per_module=per_module)
    if out is None and not as_json:
        files = destinations(store.parent / "reports", wanted, stem=f"bench-{run.id}")
    details = tuple(table for one in found for table in breakdown_tables(one))
    more = breakdown_document(found, explain=explain, per_module=per_module)
    built = bench_report(run, details, more)
    write(built, files)
    if as_json:
        console.write(renderer("json")(built))
    else:
        _print(run, details)
    where = "".join(f", wrote {path}" for _, path in files)
    console.note(f"saved as run {run.id} in {store}{where}")
    if not any(record.status == "ok" for record in run.records):
        raise NothingMeasured("nothing could be measured", hint="the reasons are listed above; see `afftool doctor`")


@dataclass(frozen=True, kw_only=True)
class _Request:
    """How to measure, apart from what."""

    backends: tuple[str, ...]
    measures: tuple[str, ...]
    device: str
    budget_s: float
    precision: float
    isolate: Literal["auto", "none", "process"]
    cache: Literal["warm", "cold"]
    threads: int | None
    as_json: bool


def _known(kind: str, texts: list[str], known: Mapping[str, object]) -> tuple[str, ...]:
    """The names given, each once; `all` stands for all there are."""
    names: list[str] = []
    for text in split_list(texts):
        if text != "all" and text not in known:
            raise unknown(kind, text, known)
        names += known if text == "all" else [text]
    return tuple(dict.fromkeys(names))


def _measure(planned: Plan, request: _Request, store: Store) -> Run:
    """Everything that needs torch."""
    for target in dict.fromkeys(t for case in planned.cases for t in (case.fusion.target, case.host.target) if t):
        load(target)
    placed = planned.on_device(resolve_device(request.device))
    import torch

    from afftool import environment
    from afftool.measure.bounds import Bounds
    from afftool.session import Interrupted, save_as_measured

    if request.threads:
        torch.set_num_threads(request.threads)
    machine = environment.read()
    bounds = Bounds.of(store.path, machine, placed.cases[0].device, request.measures)
    _advise(bounds, request, machine, store.path)
    request = dataclasses.replace(request, measures=bounds.measures)
    with console.following(to_stderr=request.as_json) as follow:
        try:
            return save_as_measured(
                store,
                itertools.chain(placed.skipped, _records(placed, request, follow)),
                command=shlex.join(["afftool", *sys.argv[1:]]),
                environment=machine,
                baseline=placed.baseline.text if placed.baseline else None,
                follow=follow,
                complete=bounds.complete,
            )
        except Interrupted as stopped:
            console.note(
                f"interrupted: {len(stopped.run.records)} records are saved as run {stopped.run.id} in {store.path}; "
                f"`afftool report {stopped.run.id}` shows them, the same command measures anew"
            )
            raise typer.Exit(130) from None


def _records(placed: Plan, request: _Request, follow: console.Following) -> Iterator[Record]:
    from afftool.bench import bench as measure_cases

    return measure_cases(
        placed.cases,
        backends=request.backends or _backends_of(placed),
        measures=request.measures,
        budget_s=request.budget_s,
        precision=request.precision,
        baseline=placed.baseline,
        isolate=request.isolate,
        cache=request.cache,
        progress=lambda now: follow.progress(now.done, now.total, now.doing),
    )


def _backends_of(placed: Plan) -> list[str]:
    """All that the machine has: those for CUDA need a case on CUDA."""
    cuda = any(case.device.startswith("cuda") for case in placed.cases)
    return [name for name, backend in catalog.BACKENDS.items() if cuda or not backend.needs_cuda]


def _advise(bounds: Bounds, request: _Request, machine: Environment, store: Path) -> None:
    """A calibration that does not count because it was made with other threads is told, with what to do."""
    if not bounds.others:
        return
    words = ["afftool", "doctor", "--calibrate", "--threads", str(machine.threads)]
    words += [] if request.device == "auto" else ["--device", request.device]
    words += [] if store == options.STORE else ["--store", str(store)]
    plural = "" if bounds.others == (1,) else "s"
    console.note(
        f"no row says what bounds it: this machine was calibrated with {', '.join(map(str, bounds.others))} "
        f"thread{plural}, and this bench uses {machine.threads}; `{shlex.join(words)}` calibrates it"
    )


def _breakdowns(planned: Plan, request: _Request, *, explain: bool, per_module: bool) -> list[Breakdown]:
    """Each case taken apart as asked, as its records have it: on the device it was measured on."""
    from afftool.breakdown import break_down

    if not (explain or per_module):
        return []
    cases = planned.on_device(resolve_device(request.device)).cases
    memory = "memory" in request.measures
    return [break_down(case, explain=explain, per_module=per_module, memory=memory) for case in cases]


def _print(run: Run, details: tuple[Table, ...]) -> None:
    """The comparison as a compact table, then what there is to know about it."""
    from afftool.report.bench import caveats, compact_table

    table = compact_table(run)
    if table.rows:
        console.out()
        console.table(table)
        if table.note:
            console.out(table.note)
    for rest in (*details, *caveats(run)):
        console.out(f"\n{rest.title}")
        console.table(rest)
        if rest.note:
            console.out(rest.note)
