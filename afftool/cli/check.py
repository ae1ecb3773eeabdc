"""`afftool check`: compare what fusions cost with a baseline or a git ref, and fail where it grew."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from afftool import console, project, written
from afftool.cli import options
from afftool.device import check_device
from afftool.errors import AfftoolError, UserError
from afftool.formats.json import json_text
from afftool.gate import config as configs
from afftool.gate import reference as references
from afftool.gate.against_ref import against_ref
from afftool.gate.against_reference import against_reference
from afftool.gate.check import Checking, write_reference
from afftool.gate.config import GateConfig
from afftool.gate.jobs import add_job, job_advice
from afftool.gate.judge import Judgement, Missing
from afftool.gate.listeners import JUNIT, Checked, Listener, listeners_for
from afftool.gate.reading import DEFAULT, METRICS, choose
from afftool.interruption import terminations_raise
from afftool.registry import unknown
from afftool.spec import split_list
from afftool.spec.amounts import MOST_THREADS, check_above_0
from afftool.spec.sweep import Words

INTERRUPTED = 130
_MISSING: tuple[Missing, ...] = ("create", "skip", "fail")


def check(
    file: Annotated[Path | None, typer.Argument(help="The baseline file; the same as --baseline.")] = None,
    baseline: Annotated[
        Path | None,
        typer.Option("--baseline", help="Compare with this file [default: the configured, or afftool-baseline.json]."),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="REF", help="Compare with a git commit, measured in this job.")
    ] = None,
    write: Annotated[bool, typer.Option("--write-baseline", help="Measure, and write the baseline file.")] = False,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Compare the code with itself: what can this runner see? With --write-baseline, add this job's times.",
        ),
    ] = False,
    init: Annotated[bool, typer.Option("--init", help="Write a commented afftool.toml to start from.")] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", "-m", help="exact, time, instructions or a metric's name [default: exact,time]. Lists."
        ),
    ] = None,
    budget: Annotated[
        float,
        typer.Option("--budget", help="Seconds of building and timing a case, at most; a first answer is waited for."),
    ] = 20.0,
    on_missing: Annotated[
        str | None,
        typer.Option(
            "--on-missing-baseline",
            help="create, skip or fail, for a file and for a case in it [default: fail; with --against, skip].",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 4 if a verdict is inconclusive.")] = False,
    only_regressions: Annotated[
        bool,
        typer.Option(
            "--only-regressions",
            help="Show only what makes the check fail, and count the rest; --json and --junit hold everything.",
        ),
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="Cases and rules [default: afftool.toml, or pyproject.toml].")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write JUnit XML to this file.")] = None,
    as_json: options.Json = False,
    fusion: Annotated[
        list[str] | None, typer.Option("--fusion", "-f", help="Check these instead of the configured cases. Lists.")
    ] = None,
    host: options.Hosts = None,
    channels: options.Channels = None,
    size: options.Sizes = None,
    batch: options.Batches = None,
    mode: options.Modes = None,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", help="How it is run [default: eager]. Lists.")
    ] = None,
    device: options.Device = "cpu",
    threads: Annotated[
        int, typer.Option("--threads", min=1, max=MOST_THREADS, help="CPU threads; one is disturbed least.")
    ] = 1,
) -> None:
    """Fail where a fusion got more expensive: the gate for continuous integration.

    Exact metrics may not grow; a time regresses only if its whole interval lies beyond the rule. With --against REF
    that is the interval over pairs of fresh processes, of 95% for all cases of the check together: 4 pairs where the
    runner is quiet, more until the answer is known or the --budget ends, which then says how much more it would take.
    Times of a baseline file are another job's: they only advise until it holds 3 jobs of the same code and machine, of
    which `--calibrate --write-baseline` adds one. The processes that are timed keep the memory that they free.

    Exits with 0 if all is fine, 2 for a wrong request, 3 for a regression, 4 for inconclusive (--strict), 5 for a
    baseline that is missing or not comparable, 6 if nothing could be measured, 130 if interrupted. Where several are
    so, it is the first of 2, 6, 5 for the baseline itself, 3, 5 for a case that it lacks, 4: a fusion that cannot be
    imported is 2 whatever baseline there is.

    A package under `src/` is imported from there, before an installed copy; with --against from each commit's own.
    """
    here = Path.cwd()
    if init:
        console.out(f"wrote {configs.write_starting_file(here).name}: edit it, then `afftool check --write-baseline`")
        return
    started = time.monotonic()
    listeners = listeners_for(junit, as_json=as_json)
    with _errors_told(listeners, started):
        if against is not None and (write or calibrate):
            raise UserError(
                "--against compares with a commit; --write-baseline and --calibrate compare with none",
                hint="leave one of them out",
            )
        if file and baseline:
            raise UserError("the baseline file is given twice", hint="leave --baseline out, or the argument")
        if on_missing is not None and on_missing not in _MISSING:
            raise unknown("--on-missing-baseline", on_missing, _MISSING)
        if junit is not None:
            written.refuse(junit, JUNIT)
        check_above_0("--budget", budget, hint="for example --budget 20")
        words = Words(
            fusion=fusion or (),
            host=host,
            channels=channels,
            size=size,
            batch=batch,
            mode=mode,
            baseline=None,
        )
        found = _configured(here, config, words, device, split_list(backend) or ["eager"])
        metrics = _metrics(found, split_list(metric))
        path = file or baseline or found.reference
        if write:
            references.refuse_unwritable(path)
        try:
            with terminations_raise(), console.following(to_stderr=True) as following:
                checking = Checking(
                    config=found,
                    metrics=metrics,
                    here=here,
                    budget_s=budget,
                    follow=following.progress,
                    threads=threads,
                )
                if calibrate:
                    added = add_job(checking, path) if write else None
                    _show_noise(checking, as_json=as_json)
                    console.note(job_advice(path) if added is None else added.told(path))
                    return
                if write:
                    measured = write_reference(checking, path)
                    console.note(f"wrote {path}: {len(measured.readings)} cases; commit it")
                    if checking.timed:
                        console.note(job_advice(path))
                    return
                judgement, missing = _judged(checking, path, against, on_missing)
        except KeyboardInterrupt:
            console.note("interrupted: nothing was judged and nothing is left behind; start it again when you like")
            raise typer.Exit(INTERRUPTED) from None
    code = judgement.exit_code(strict=strict, on_missing=missing)
    shown = judgement.deciding(strict=strict, on_missing=missing) if only_regressions else judgement
    result = Checked(judgement, code, time.monotonic() - started, found.file, strict, shown)
    for listener in listeners:
        listener.told(result)
    raise typer.Exit(code)


def _configured(here: Path, file: Path | None, words: Words, device: str, backends: Sequence[str]) -> GateConfig:
    """The project's configuration, with the command line's cases in place of its own if there are any."""
    path = file or project.find(here)
    own = configs.read(path, needs_cases=not words.fusion) if path else None
    if words.fusion:
        asked = configs.from_words(words, device=check_device(device), backends=backends, directory=here)
        return asked if own is None else replace(own, cases=asked.cases, skipped=asked.skipped)
    if own is None:
        raise UserError(
            f"there is no {project.FILE} and no [tool.afftool] in pyproject.toml here",
            hint="`afftool check --init` writes one to start from, or name fusions with --fusion",
        )
    if any((words.host, words.channels, words.size, words.batch, words.mode)):
        raise UserError("these options describe a --fusion, and none is given", hint=f"change the cases in {path}")
    return own


def _metrics(found: GateConfig, words: list[str]) -> tuple[str, ...]:
    """What to measure: as asked, else as configured, else everything exact, time, and what a rule asks for."""
    if words:
        return choose(words)
    chosen = found.metrics or DEFAULT
    return tuple(name for name in METRICS if name in chosen or (not found.metrics and name in found.rules.named))


def _judged(checking: Checking, path: Path, against: str | None, on_missing: str | None) -> tuple[Judgement, Missing]:
    if against is not None:
        missing: Missing = next((word for word in _MISSING if word == on_missing), "skip")
        return against_ref(checking, against), missing
    missing = next((word for word in _MISSING if word == on_missing), "fail")
    return against_reference(checking, path, missing), missing


@contextmanager
def _errors_told(listeners: Sequence[Listener], started: float) -> Iterator[None]:
    """An error of the block is told wherever a judgement would have been; `afftool.cli` then prints it and exits."""
    try:
        yield
    except AfftoolError as error:
        for listener in listeners:
            listener.refused(error, time.monotonic() - started)
        raise


def _show_noise(checking: Checking, *, as_json: bool) -> None:
    from afftool.gate import noise

    found = noise.read(checking)
    if as_json:
        console.write(json_text([noise.fields(case) for case in found]))
    else:
        console.table(noise.table(found))
    for case in found:
        if case.warning:
            console.note(f"warning: {case.warning}")
