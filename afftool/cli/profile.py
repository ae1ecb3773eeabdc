"""`afftool profile`: a trace, a TensorBoard log and a report of one case, or what differs between several."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afftool import catalog, console
from afftool.cli import options
from afftool.cli.threads import use_threads
from afftool.device import check_device, resolve_device
from afftool.errors import AfftoolError, NothingMeasured, SpecError, UserError
from afftool.formats import renderer
from afftool.formats.json import json_text
from afftool.registry import check_names
from afftool.spec import CaseSpec, split_list
from afftool.spec.sweep import Words, sweep

if TYPE_CHECKING:
    from afftool.profile.run import Profiled
    from afftool.tables import Report

DEFAULT_OUT = Path(".afftool") / "profile"
MOST_STEPS = 10_000
"""Each is a part of a trace that is held in memory whole."""
_QUIET = {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""The profiler's native side tells of its own starts and stops otherwise. Read when torch loads."""


def profile(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Fusions, or folders of earlier profiles; the first is compared with each other one."),
    ] = None,
    fusion: Annotated[list[str] | None, typer.Option("--fusion", "-f", help="Fusions, as for bench. Lists.")] = None,
    host: options.Hosts = None,
    channels: options.Channels = None,
    size: options.Sizes = None,
    batch: options.Batches = None,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", help="How it is run [default: eager]. Lists.")
    ] = None,
    mode: options.Modes = None,
    device: options.Device = "auto",
    dtype: options.Dtypes = None,
    memory_format: options.MemoryFormats = None,
    threads: options.Threads = None,
    steps: Annotated[int, typer.Option("--steps", min=1, max=MOST_STEPS, help="Steps to trace, after warm-up.")] = 5,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for traces, logs and reports.")] = DEFAULT_OUT,
    force: options.Force = False,
    formats: options.Formats = None,
    show: Annotated[
        bool, typer.Option("--open", help="Start TensorBoard on the log, on this machine only, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="TensorBoard's port; 0 is any free one.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Look into a fusion: operators, kernels, modules, gaps and memory of a traced run, on screen and in files.

    Two fusions or more (`profile add iaff`) are compared operator by operator. Each trace.json.gz opens in
    ui.perfetto.dev; --open shows the logs in TensorBoard.
    """
    for variable, level in _QUIET.items():
        os.environ.setdefault(variable, level)
    names = split_list(formats) or ["md", "csv"]
    for name in names:
        renderer(name)
    stored = [Path(text) for text in what or [] if _is_profile(Path(text))]
    fusions = [text for text in what or [] if not _is_profile(Path(text))] + list(fusion or [])
    cases = _cases(
        Words(
            fusion=fusions,
            host=host,
            channels=channels,
            size=size,
            batch=batch,
            mode=mode,
            dtype=dtype,
            memory_format=memory_format,
            baseline=None,
        ),
        split_list(backend) or ["eager"],
        needed=not stored and not (show and (out / "tensorboard").is_dir()),
    )
    check_device(device)
    if show:
        from afftool.profile.plugin import check_port

        check_port(port)
    done = _load(stored)
    if cases or len(stored) > 1:
        _refuse_unwritable(out, cases, stored, names, resolve_device(device) if cases else device, force=force)
    if cases:
        with console.stdout_kept(as_json):
            done += _profile(cases, out, names, steps, resolve_device(device), threads, force=force)
    reports = _compare(done, out, names, force=force)
    _print(done, reports, as_json)
    if show:
        _open((stored[0].parent if stored and not cases else out) / "tensorboard", port)


def _is_profile(folder: Path) -> bool:
    return (folder / "profile.json").is_file()


def _cases(words: Words, backends: Sequence[str], *, needed: bool) -> list[tuple[CaseSpec, str]]:
    check_names("backend", backends, catalog.BACKENDS)
    if not words.fusion:
        if needed:
            raise SpecError(
                "nothing to profile", hint="for example `afftool profile iaff`, or `afftool profile add iaff`"
            )
        return []
    planned = sweep(words)
    for record in planned.skipped:
        console.note(f"skipped {record.fusion}: {record.reason}")
    return [(case, name) for case in planned.cases for name in backends]


def _refuse_unwritable(
    out: Path, cases: list[tuple[CaseSpec, str]], stored: list[Path], names: list[str], device: str, *, force: bool
) -> None:
    from afftool.profile.run import refuse_unwritable

    placed = [(dataclasses.replace(case, device=device), name) for case, name in cases]
    refuse_unwritable(out, placed, stored, formats=names, force=force)


def _load(folders: list[Path]) -> list[Profiled]:
    from afftool.profile.run import PROFILE, Profiled
    from afftool.profile.summary import load

    return [Profiled(load(folder / PROFILE), folder) for folder in folders]


def _profile(
    cases: list[tuple[CaseSpec, str]],
    out: Path,
    names: list[str],
    steps: int,
    device: str,
    threads: str | None,
    *,
    force: bool,
) -> list[Profiled]:
    from afftool import environment
    from afftool.build import check_buildable
    from afftool.failure import FailedError, Failure
    from afftool.fusion.own import say_assumptions
    from afftool.profile.run import profile_case

    placed = [(dataclasses.replace(case, device=device), name) for case, name in cases]
    check_buildable(case for case, _ in placed)
    say_assumptions()
    use_threads(threads, device)
    machine = environment.read(device)
    done: list[Profiled] = []
    failures: list[Exception] = []
    with console.following(to_stderr=True) as follow:
        for number, (case, name) in enumerate(placed):
            follow.progress(number, len(placed), f"profiling {case.fusion} ({name})")
            try:
                done.append(profile_case(case, name, out, formats=names, steps=steps, environment=machine, force=force))
            except (AfftoolError, FailedError) as error:
                failure = Failure.of(error)
                word = "skipped" if failure.status == "skipped" else "failed"
                follow.line(f"{word} {case.fusion} ({name}): {failure.reason}")
                failures.append(error)
    if done:
        return done
    if all(isinstance(error, UserError) for error in failures):
        raise failures[0]
    raise NothingMeasured(f"nothing was profiled: {Failure.of(failures[0]).reason}")


def _compare(done: list[Profiled], out: Path, names: list[str], *, force: bool) -> list[Report]:
    from afftool.profile.run import compare

    return compare(done, out, formats=names, force=force)


def _print(done: list[Profiled], reports: list[Report], as_json: bool) -> None:
    from afftool.profile.report import profile_report

    if as_json:
        profiles = [item.profile.to_dict() for item in done]
        several = {"schema": 1, "profiles": profiles, "comparisons": [report.document for report in reports]}
        console.write(json_text(profiles[0] if len(done) == 1 else several))
    for report in [] if as_json else reports or [profile_report(item.profile) for item in done]:
        console.out(report.title)
        console.pairs(list(report.facts), indent=2)
        for table in report.tables:
            console.out(f"\n{table.title}")
            console.table(table)
        for note in report.notes:
            console.out(f"\n{note}")
    for item in done:
        console.note(f"wrote {item.folder} (report, trace.json.gz, profile.json, memory.csv)")


def _open(log: Path, port: int) -> None:
    import signal

    from afftool.profile.plugin import tensorboard

    for name in ("SIGTERM", "SIGHUP"):  # a closed terminal or a stopped job must not leave the server behind
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    with suppress(KeyboardInterrupt), tensorboard(log, port=port) as address:
        console.write(f"TensorBoard: {address} (Ctrl-C stops it)\n")
        while True:
            time.sleep(3600)
    console.note("stopped TensorBoard")
