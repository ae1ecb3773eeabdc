"""`afftool ablate`: train every variant alike over several seeds, store each cell as it ends, and judge."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from afftool import console
from afftool.cli import options
from afftool.cli.output import Output
from afftool.cli.stored import opened, say_left
from afftool.masked import command_line
from afftool.spec import split_list
from afftool.spec.amounts import MOST_THREADS
from afftool.study.engines import build_engine, check_cluster, check_engine, device_of
from afftool.study.request import Request, batch_chosen, requested
from afftool.tables import Report

if TYPE_CHECKING:
    from afftool.study.run import Ablation, Engine
    from afftool.unfinished import Mark

FOLDER = Path("ablations")
"""Where reports go unless --out says otherwise."""
INTERRUPTED = 130


def ablate(
    study: Annotated[str, typer.Argument(help="A study's name (`afftool list studies`), or a TOML file.")],
    host: Annotated[
        str | None,
        typer.Option(
            "--host", help="What carries the fusions: name[:key=value]..., pkg.mod:build, or graft:pkg.mod:build."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="NAME[:PATH][:key=value]...; `list datasets`.")] = None,
    train_images: Annotated[int | None, typer.Option(help="A stratified subset of so many training images.")] = None,
    data_seed: Annotated[int | None, typer.Option(help="Draws the subset, and the images that are made.")] = None,
    data_seeds: Annotated[
        int | None, typer.Option(help="So many subsets, which the seeds take in turn [default: 1, the same for all].")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Seeds 0 to N-1 [default: the study's].")] = None,
    variants: Annotated[
        list[str] | None, typer.Option("--variants", help="Other fusions instead: names, or pkg.mod:Class. Lists.")
    ] = None,
    baseline: Annotated[str | None, typer.Option("--baseline", help="What the others are compared with.")] = None,
    any_budget: Annotated[bool, typer.Option("--any-budget", help="Compare unequal parameter budgets too.")] = False,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="name[:key=value]...: short, paper-cifar, paper-fpn.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", "-e", help="Epochs a cell.")] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", "-b", help="Images a step [default: the recipe's, fewer where the data has fewer]."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-w", help="Cells at a time [default: one a core; 1-4 a GPU, by memory].")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="local, or ray for a cluster.")] = "local",
    address: Annotated[str | None, typer.Option("--address", help="Ray's cluster: auto, or HOST:PORT.")] = None,
    gpus: Annotated[float | None, typer.Option("--gpus", help="GPUs a cell under Ray, as 0.25.")] = None,
    device: options.Device = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1, max=MOST_THREADS, help="CPU threads a cell.")] = 1,
    compiled: Annotated[
        Literal["auto", "always", "never"], typer.Option("--compile", help="torch.compile: auto where it pays.")
    ] = "auto",
    shard: Annotated[str, typer.Option("--shard", help="Only this part of the cells, as 2/5.")] = "1/1",
    fresh: Annotated[bool, typer.Option("--fresh", help="Train finished cells again.")] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="Compare all pairs, not only with the baseline.")] = False,
    margin: options.Margin = None,
    show: Annotated[bool, typer.Option("--print", help="Print the study as TOML and train nothing.")] = False,
    tensorboard: Annotated[Path | None, typer.Option("--tensorboard", help="Log scalars and hparams here.")] = None,
    out: options.Out = None,
    force: options.Force = False,
    formats: options.Formats = None,
    as_json: options.Json = False,
    store: options.StorePath = options.STORE,
) -> None:
    """Train variants alike over several seeds, and judge what can be told.

    Every cell (a variant with a seed) is stored the moment it is trained and never trained again; a killed run goes
    on from the last epoch. The report is written to `ablations/` unless --out says otherwise.
    """
    request = Request(
        study=study,
        host=host,
        data=data,
        train_images=train_images,
        data_seed=data_seed,
        data_seeds=data_seeds,
        seeds=seeds,
        variants=tuple(split_list(variants)),
        baseline=baseline,
        recipe=recipe,
        epochs=epochs,
        batch=batch,
        any_budget=any_budget,
    )
    spec = requested(request)
    if show:
        console.write(spec.to_toml())
        return
    check_engine(engine, workers=workers, address=address, gpus=gpus)
    output = Output.of(out or (FOLDER if shard == "1/1" else None), formats, as_json, stem=spec.name, force=force)
    if tensorboard is not None:
        from afftool.study.tensorboard import refuse_unwritable

        refuse_unwritable(tensorboard)
    from afftool.fusion.own import say_assumptions
    from afftool.study.plan import Conditions
    from afftool.study.report.words import power_words
    from afftool.study.run import Shard, begin
    from afftool.study.stored import stored_report
    from afftool.unfinished import marked

    part, where = Shard.parse(shard), device_of(engine, device, gpus)
    check_cluster(engine, device=where, threads=threads, workers=workers, address=address, gpus=gpus)
    conditions = Conditions(device=where.partition(":")[0], threads=threads, compiled=compiled)
    with opened(store, create=True) as stored:
        command = command_line(["afftool", *sys.argv[1:]])
        with console.stdout_kept(as_json), marked(store) as mark:
            say_left(store)
            mark.tell(f"loading and trying the variants of {spec.name}")
            ablation = begin(
                spec,
                stored,
                conditions,
                device=where,
                shard=part,
                fresh=fresh,
                command=command,
                batch_chosen=batch_chosen(request),
            )
            mark.begin(ablation.run_id)
            for note in ablation.plan.adapted:
                console.note(note)
            say_assumptions()
            for warning in ablation.plan.warnings:
                console.note(f"warning: {warning}")
            planned = ablation.plan.study
            console.note(f"{power_words(len(planned.seeds), len(planned.comparisons(pairs=pairs)))}.")
            train = build_engine(engine, ablation.plan, device=where, workers=workers, address=address, gpus=gpus)
            _follow(ablation, train, tensorboard, mark, quiet=as_json)
        report = stored_report(stored, ablation.run_id, pairs=pairs, margin=margin)
        assert report is not None
        if as_json:
            output.print(report)
        else:
            _show(report)
        output.write(report)
        output.tell()
        ablation.check()
    if part.of > 1:
        console.note(f"shard {shard} is done; join the stores by `afftool runs merge`, then run without --shard")


def _follow(ablation: Ablation, engine: Engine, tensorboard: Path | None, mark: Mark, *, quiet: bool) -> None:
    """Train what is missing and tell how far it is. Ctrl-C ends with exit 130; everything finished is stored."""
    from afftool.study.cells import CellRecord
    from afftool.study.progress import Progress

    progress = Progress(ablation.cells, ablation.names)
    done, total = len(ablation.names) - len(ablation.cells), len(ablation.names)
    log = None
    if tensorboard is not None:
        from afftool.study.tensorboard import Log

        log = Log(tensorboard, ablation.names)
        for record in ablation.kept():
            log.replay(record)
    with console.following(to_stderr=quiet) as following, log or nullcontext():
        following.line(f"{ablation.plan.study.name}: {done} of {total} cells are done, {len(ablation.cells)} to train")
        mark.tell(f"training {', '.join(variant.name for variant in ablation.plan.study.variants)}")
        try:
            for event in ablation.events(engine):
                if isinstance(event, CellRecord):
                    following.line(progress.end(event))
                else:
                    doing = progress.tick(event)
                    mark.tell(f"training, last heard of {doing}")
                    following.progress(progress.done, progress.total, doing)
                if log:
                    log.add(event)
        except KeyboardInterrupt:
            following.line(progress.interrupted())
            console.note("the same command goes on from there")
            raise typer.Exit(INTERRUPTED) from None


def _show(report: Report) -> None:
    for table in report.tables[:3]:
        console.out(f"\n{table.title}")
        console.table(table)
    console.out()
    for line in report.notes:
        console.out(line)
