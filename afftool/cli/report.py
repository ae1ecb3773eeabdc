"""`afftool report`: a stored run, written down."""

from __future__ import annotations

from typing import Annotated

import typer

from afftool import console
from afftool.cli import options
from afftool.formats import destinations, renderer, write
from afftool.report import bench_report
from afftool.spec import split_list
from afftool.store import Store
from afftool.study.stored import stored_report

report = typer.Typer(rich_markup_mode=None, add_completion=False)


@report.command(cls=options.RunsCommand)
def write_report(
    run: Annotated[str, typer.Argument(help="A run's number, latest, or -2 for the one before it.")] = "latest",
    pairs: Annotated[bool, typer.Option("--pairs", help="In a study's report, compare all pairs of variants.")] = False,
    out: options.Out = None,
    formats: options.Formats = None,
    as_json: options.Json = False,
    store: options.StorePath = options.STORE,
) -> None:
    """Write a stored run as Markdown, CSV, JSON or HTML; to stdout unless --out is given."""
    names = split_list(formats or [])
    files = destinations(out, names, stem="report")
    with Store.open(store, create=False) as opened:
        built = stored_report(opened, opened.find(run), pairs=pairs) or bench_report(opened.run(run))
    if files:
        write(built, files)
        for _, path in files:
            console.note(f"wrote {path}")
    if not files or as_json:
        for name in ["json"] if as_json else names or ["md"]:
            console.write(renderer(name)(built))
