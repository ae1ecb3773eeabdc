"""`afftool bench`: measure fusions, store every record as it comes, and print the comparison.

What can be wrong with the words is found before torch is imported; see `afftool.spec.sweep`.
"""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from afftool import catalog, console, units
from afftool.cli import options
from afftool.cli.planning import bare_cases, looked_at_elsewhere, make_ready, plan, read_words
from afftool.cli.stored import say_left
from afftool.cli.threads import use_threads
from afftool.device import check_device
from afftool.errors import NothingMeasured
from afftool.masked import command_line
from afftool.measure.time.clocks import check_clock, locked_clock
from afftool.spec import CaseSpec, split_list
from afftool.spec.options import Options
from afftool.spec.sweep import AUTO, Sweep

if TYPE_CHECKING:
    from afftool.bench.elsewhere import Elsewhere
    from afftool.measure.ceilings.bounds import Bounds
    from afftool.record import Environment, Run
    from afftool.report.breakdown import Breakdown
    from afftool.store import Store
    from afftool.tables import Table
    from afftool.unfinished import Mark


def bench(
    fusion: options.Fusions = None,
    cases: Annotated[
        Path | None,
        typer.Option("--cases", metavar="FILE", help="A TOML file of [[case]] tables, as `check` reads, instead."),
    ] = None,
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
    budget: Annotated[
        float, typer.Option("--budget", help="Seconds of sampling for the whole bench.")
    ] = Options.budget_s,
    precision: Annotated[
        float,
        typer.Option("--precision", help="Stop, from half of the budget on, when the 95% interval is within this."),
    ] = Options.precision,
    isolate: Annotated[
        Literal["auto", "none", "process"],
        typer.Option("--isolate", help="process: each row in a process of its own; auto: where it disturbs others."),
    ] = "auto",
    timeout: Annotated[
        float,
        typer.Option("--timeout", help="Seconds until a row in a process of its own is ready; others cannot be ended."),
    ] = Options.timeout_s,
    cache: Annotated[
        Literal["warm", "cold"],
        typer.Option("--cache", help="cold: the caches are emptied, and the device idle, before every timed step."),
    ] = "warm",
    allocator: Annotated[
        Literal["system", "kept", "both"],
        typer.Option(
            "--allocator",
            help="What becomes of freed CPU memory: system: as the C library likes, in fresh processes such as a "
            "user's; kept: it is kept, in this process; both: a row each.",
        ),
    ] = Options.allocator,
    processes: Annotated[
        int, typer.Option("--processes", help="Fresh processes a row, each one draw, under --allocator system.")
    ] = Options.processes,
    lock_clocks: Annotated[
        str | None,
        typer.Option(
            "--lock-clocks",
            metavar="CLOCK",
            help="Hold the GPU's clock meanwhile (as root): base, which it keeps at any load, or so many MHz.",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also: every operator, its formula, and what other counters say of it.")
    ] = False,
    per_module: Annotated[
        bool, typer.Option("--per-module", help="Also: the cost of every module, and what it saves for backward.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 6 if any row failed.")] = False,
    alone: Annotated[
        bool,
        typer.Option("--alone/--no-alone", help="With a graft: the bare fusions at the shapes of its sites, too."),
    ] = True,
    baseline: options.Baseline = AUTO,
    threads: options.Threads = None,
    out: options.Out = None,
    force: options.Force = False,
    formats: options.Formats = None,
    as_json: options.Json = False,
    store: options.StorePath = options.STORE,
) -> None:
    """Measure what fusions cost: parameters, MACs, bytes, latency, memory.

    Every option that takes lists makes a sweep: all combinations are measured, and those that cannot be are listed
    with the reason. Each record is stored the moment it exists.

    Exits with 0 if something was measured, 2 for a wrong request (a module of your own that cannot be loaded or built,
    or is none, among them), 6 if nothing could be measured, 130 if interrupted. A row that fails while it runs is kept
    with its reason, and ends in 6 only with --strict.
    """
    words = read_words(
        cases,
        fusion=fusion,
        host=host,
        channels=channels,
        size=size,
        batch=batch,
        mode=mode,
        dtype=dtype,
        memory_format=memory_format,
    )
    planned = plan(words, baseline)
    asked = Options(
        backends=_names(backend, catalog.BACKENDS),  # none: all that the device can run
        measures=_names(measure, catalog.MEASURES) or Options.measures,
        budget_s=budget,
        precision=precision,
        isolate=isolate,
        timeout_s=timeout,
        cache=cache,
        allocator=allocator,
        processes=processes,
        baseline=planned.baseline,
    )
    check_device(device)
    check_clock(lock_clocks)

    from afftool.cli.output import Output
    from afftool.report import bench_report
    from afftool.report.breakdown import breakdown_document, breakdown_tables
    from afftool.store import Store
    from afftool.unfinished import marked

    output = Output.of(out, formats, as_json, stem="bench", force=force)
    with console.stdout_kept(as_json), marked(store) as mark, looked_at_elsewhere(asked) as elsewhere:
        say_left(store)
        named = dict.fromkeys(name for one in words.values() for name in split_list(one.fusion))
        mark.tell(f"loading {', '.join(named)}")
        placed = make_ready(planned, words, baseline, elsewhere, device)
        use_threads(threads, placed.cases[0].device, timed="latency" in asked.measures)
        with locked_clock(placed.cases[0].device, lock_clocks) as locked, Store.open(store) as opened:
            bare = bare_cases(placed, elsewhere) if alone and "latency" in asked.measures else ()
            run = _measure(placed, bare, asked, opened, mark, elsewhere, device=device, locked=locked, quiet=as_json)
        mark.tell("taking the cases apart")
        found = _breakdowns(placed, run, asked, explain=explain, per_module=per_module)
    if out is None and not as_json:
        output = Output.of(store.parent / "reports", formats, as_json, stem=f"bench-{run.id}", force=force)
    details = tuple(table for one in found for table in breakdown_tables(one))
    more = breakdown_document(found, explain=explain, per_module=per_module)
    built = bench_report(run, details, more)
    if as_json:
        output.print(built)
    else:
        _print(run, details)
    output.write(built)
    where = "".join(f", wrote {path}" for _, path in output.files)
    console.note(f"saved as run {run.id} in {store}{where}")
    failed = [record for record in run.records if record.status in ("failed", "oom")]
    if not any(record.status == "ok" for record in run.records):
        raise NothingMeasured("nothing could be measured", hint="the reasons are listed above; see `afftool doctor`")
    if strict and failed:
        raise NothingMeasured(
            f"{len(failed)} of {len(run.records)} rows failed", hint="the reasons are listed above; --strict minds them"
        )


def _names(texts: list[str] | None, known: Mapping[str, object]) -> tuple[str, ...]:
    """The names given, each once; `all` stands for all there are. `Options` refuses those that mean nothing."""
    names: list[str] = []
    for text in split_list(texts):
        names += known if text == "all" else [text]
    return tuple(dict.fromkeys(names))


def _measure(
    placed: Sweep,
    bare: Sequence[CaseSpec],
    asked: Options,
    store: Store,
    mark: Mark,
    elsewhere: Elsewhere | None,
    *,
    device: str,
    locked: str | None,
    quiet: bool,
) -> Run:
    """Every record, those of the `bare` fusions last, stored the moment it exists; `locked` is the GPU's clock."""
    from afftool import environment
    from afftool.bench import bench as measure_cases
    from afftool.bench.rows import blank
    from afftool.bench.session import Interrupted, save_as_measured
    from afftool.measure.ceilings.bounds import Bounds
    from afftool.report.columns import alike
    from afftool.report.lines import setting_line

    place = placed.cases[0].device
    machine = dataclasses.replace(environment.read(place), gpu_locked_clock=locked)
    bounds = Bounds.of(store.path, machine, place, asked.measures)
    _advise(bounds, device, machine, store.path)
    whole = dataclasses.replace(asked, measures=bounds.measures)
    shared = alike([*placed.skipped, *map(blank, placed.cases)])
    console.note(f"measuring with {setting_line(shared)}")
    cases = (*placed.cases, *bare)
    _foretell(cases, whole)
    with console.following(to_stderr=quiet) as follow:

        def heard(done: float, total: float, doing: str) -> None:
            mark.tell(doing)
            follow.progress(done, total, doing)

        try:
            return save_as_measured(
                store,
                itertools.chain(placed.skipped, measure_cases(cases, whole, follow=heard, elsewhere=elsewhere)),
                command=command_line(["afftool", *sys.argv[1:]]),
                environment=machine,
                baseline=placed.baseline.text if placed.baseline else None,
                follow=follow,
                complete=bounds.complete,
                shared=shared,
                begun=mark.begin,
            )
        except Interrupted as stopped:
            console.note(
                f"interrupted: {len(stopped.run.records)} records are saved as run {stopped.run.id} in {store.path}; "
                f"`afftool report {stopped.run.id}` shows them, the same command measures anew"
            )
            raise typer.Exit(130) from None


def _foretell(cases: Sequence[CaseSpec], asked: Options) -> None:
    """How many processes will be started and how long that takes, before the first: it is not in the budget."""
    from afftool.bench.run import processes_to_start
    from afftool.environment import cores

    starts = processes_to_start(cases, asked)
    if starts:
        # each does what this one did so far: it starts Python and loads torch
        seconds = units.seconds(starts * time.process_time() / min(cores(), starts))
        compiled = any(name.startswith("compile") for name in asked.backends)
        more = ", more for each that compiles," if compiled or not asked.backends else ""
        processes = f"{asked.processes} fresh process{'es' if asked.processes > 1 else ''}"
        console.note(
            f"each row is timed in {processes}, as a script of yours would run; starting {starts} takes about "
            f"{seconds}{more} beside the budget (--allocator kept: none)"
        )


def _advise(bounds: Bounds, device: str, machine: Environment, store: Path) -> None:
    """A calibration that does not count because it was made with other threads is told, with what to do."""
    if not bounds.others:
        return
    words = ["afftool", "doctor", "--calibrate", "--threads", str(machine.threads)]
    words += [] if device == "auto" else ["--device", device]
    words += [] if store == options.STORE else ["--store", str(store)]
    plural = "" if bounds.others == (1,) else "s"
    console.note(
        f"no row says what bounds it: this machine was calibrated with {', '.join(map(str, bounds.others))} "
        f"thread{plural}, and this bench uses {machine.threads}; `{shlex.join(words)}` calibrates it"
    )


def _breakdowns(placed: Sweep, run: Run, asked: Options, *, explain: bool, per_module: bool) -> list[Breakdown]:
    """Each case taken apart as asked, as its records have it: on the device it was measured on.

    That is done in this process: of what is run elsewhere, only what has run well there.
    """
    from afftool.bench.session import break_down

    if not (explain or per_module):
        return []
    memory = "memory" in asked.measures
    well = {record.identity for record in run.records if record.status == "ok"}
    cases = [case for case in placed.cases if asked.isolate != "process" or case.identity in well]
    return [break_down(case, explain=explain, per_module=per_module, memory=memory) for case in cases]


def _print(run: Run, details: tuple[Table, ...]) -> None:
    """The comparison as a compact table, then what there is to know about it."""
    from afftool.report.bench import compact_table
    from afftool.report.caveats import caveats

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
