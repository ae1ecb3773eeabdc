"""`afftool inspect`: a fusion looked at as a reviewer would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from afftool import console
from afftool.cli import options
from afftool.cli.output import Output
from afftool.errors import LoadError, SpecError
from afftool.global_state import sentence, set_by
from afftool.spec import CaseSpec, FusionSpec, parse_size, show_size

if TYPE_CHECKING:
    from afftool.inspect.finding import Finding
    from afftool.tables import Report

_MARK = {"fault": "FAULT", "warning": "warning", "note": "note", "unknown": "unknown", "ok": "ok"}


def inspect(
    name: Annotated[
        str, typer.Argument(help="A fusion: name[:key=value]..., pkg.mod:Class[:key=value]... or path/file.py:Class...")
    ],
    channels: Annotated[int, typer.Option("--channels", "-c", min=1, help="Channels of the maps.")] = 32,
    size: Annotated[str, typer.Option("--size", "-s", help="Spatial size of the maps, 16 or 16x8.")] = "16",
    batch: Annotated[int, typer.Option("--batch", "-b", min=2, help="Maps in a batch.")] = 8,
    out: options.Out = None,
    force: options.Force = False,
    formats: options.Formats = None,
    as_json: options.Json = False,
) -> None:
    """Review a fusion, ours or your own: other sizes, dead parameters, output scale, x against y, batch of 1,
    mismatched shapes, state in eval, 16 bits, gate statistics, ten stacked blocks, graph breaks, export.

    Every finding says what, why it matters and what to do. It is run on the CPU, freshly initialised. Exit code 2 if
    the module cannot be built or called.
    """
    fusion = FusionSpec.parse(name)
    extents = parse_size(size, fusion.ndim)
    if min(extents) < 2:
        raise SpecError(
            "--size must be at least 2, so that there is something to look at", hint="for example --size 16"
        )
    CaseSpec(fusion=fusion, channels=channels, size=extents, batch=batch)
    output = Output.of(out, formats, as_json, stem="inspection", force=force)

    import torch

    from afftool.fusion.own import say_assumptions, settled
    from afftool.inspect.checks import CHECKS, review
    from afftool.inspect.finding import inspect_report
    from afftool.inspect.subject import subject_of

    torch.set_num_threads(1)  # The maps are small, and so every run says the same.
    found: list[Finding] = []
    with console.stdout_kept(as_json), console.following(to_stderr=as_json) as follow:
        fusion = settled(fusion)
        subject = subject_of(fusion, channels=channels, size=extents, batch=batch)
        say_assumptions()
        for finding in review(subject):
            found.append(finding)
            follow.progress(len({f.check for f in found}), len(CHECKS), finding.check)
    setting: dict[str, object] = {"channels": channels, "size": show_size(extents), "batch": batch}
    setting |= {"device": "cpu", "dtype": "float32"}
    report = inspect_report(fusion.text, found, setting)
    if as_json:
        output.print(report)
    else:
        _print(report, found)
    output.write(report)
    output.tell()
    if changed := set_by(fusion.target):
        console.note(f"warning: {sentence([fusion.target], changed)}")
    for finding in found:
        if finding.check == "output" and finding.measured.get("runs") is False:
            raise LoadError(f"{fusion.text} cannot be inspected: {finding.what}", hint=finding.do)


def _print(report: Report, found: list[Finding]) -> None:
    console.out(report.title)
    for finding in found:
        console.out(f"{_MARK[finding.severity]:8} {finding.check}: {finding.what}")
        for label, text in (("why", finding.why), ("do", finding.do)):
            if text:
                console.out(f"{'':9}{label}: {text}")
    console.out(dict(report.facts)["Found"])
