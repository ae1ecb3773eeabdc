"""`afftool report`: a stored run, written down."""

from __future__ import annotations

from typing import Annotated

import typer

from afftool.cli import options
from afftool.cli.output import Output
from afftool.cli.stored import opened
from afftool.report import bench_report
from afftool.study.stored import stored_report

report = typer.Typer(rich_markup_mode=None, add_completion=False)


@report.command(cls=options.RunsCommand)
def write_report(
    run: Annotated[str, typer.Argument(help="A run's number, latest, or -2 for the one before it.")] = "latest",
    pairs: Annotated[bool, typer.Option("--pairs", help="In a study's report, compare all pairs of variants.")] = False,
    margin: options.Margin = None,
    out: options.Out = None,
    force: options.Force = False,
    formats: options.Formats = None,
    as_json: options.Json = False,
    store: options.StorePath = options.STORE,
) -> None:
    """Write a stored run in any of the formats; to stdout unless --out is given."""
    output = Output.of(out, formats, as_json, stem="report", force=force)
    with opened(store) as stored:
        built = stored_report(stored, stored.find(run), pairs=pairs, margin=margin) or bench_report(stored.run(run))
    output.deliver(built)
