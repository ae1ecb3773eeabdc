"""`afftool runs`: what has been run; `runs merge`: the runs of other stores, brought together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from afftool import console
from afftool.cli import options
from afftool.record import Run
from afftool.report.model import Column, Table
from afftool.store import Store

runs = typer.Typer(rich_markup_mode=None, add_completion=False)


@runs.callback(invoke_without_command=True)
def list_runs(context: typer.Context, store: options.StorePath = options.STORE, as_json: options.Json = False) -> None:
    """List the stored runs."""
    if context.invoked_subcommand:
        return
    with Store.open(store, create=False) as opened:
        rows = tuple(_row(run, len(opened.cells(run.id))) for run in opened.runs())
    if as_json:
        names = [column.name for column in _COLUMNS]
        document = [dict(zip(names, row, strict=True)) for row in rows]
        console.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        return
    console.table(Table(title="Runs", columns=_COLUMNS, rows=rows))


@runs.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Stores whose runs are copied into the one of --store.")],
    store: options.StorePath = options.STORE,
) -> None:
    """Copy the runs of other stores into one, for example those of a CI matrix. A run already there is left out."""
    with Store.open(store) as into:
        for path in sources:
            with Store.open(path, create=False) as source:
                added = into.merge(source)
            console.out(f"{path}: {added} runs added to {store}")


_COLUMNS = (
    Column("run", "run", numeric=True),
    Column("started", "started"),
    Column("state", "state"),
    Column("ok", "ok", numeric=True),
    Column("other", "not ok", numeric=True),
    Column("cells", "study rows", numeric=True),
    Column("torch", "torch"),
    Column("command", "command"),
)


def _row(run: Run, cells: int) -> tuple[object, ...]:
    ok = sum(record.status == "ok" for record in run.records)
    state = "finished" if run.finished else "not finished"
    return (run.id, run.started, state, ok, len(run.records) - ok, cells, run.environment.torch, run.command)
