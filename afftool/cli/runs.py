"""`afftool runs`: what has been run; `runs merge`: the runs of other stores, brought together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from afftool import console
from afftool.cli import options
from afftool.cli.left import say_left
from afftool.record import Run
from afftool.store import Store
from afftool.tables import Column, Table

runs = typer.Typer(rich_markup_mode=None, add_completion=False)


@runs.callback(invoke_without_command=True)
def list_runs(context: typer.Context, store: options.StorePath = options.STORE, as_json: options.Json = False) -> None:
    """List the stored runs."""
    if context.invoked_subcommand:
        return
    with Store.open(store, create=False) as opened:
        stored = [_Stored(run, len(opened.cells(run.id))) for run in opened.runs()]
    table = Table.of("Runs", stored, _COLUMNS)
    say_left(store, clear=False)
    if as_json:
        console.write(json.dumps(table.named_rows(), indent=1, ensure_ascii=False) + "\n")
    else:
        console.table(table)


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


@dataclass(frozen=True)
class _Stored:
    """A run and how many rows of a study it holds."""

    run: Run
    cells: int

    @property
    def ok(self) -> int:
        return sum(record.status == "ok" for record in self.run.records)


_COLUMNS: tuple[Column[_Stored], ...] = (
    Column("run", "run", numeric=True, get=lambda stored: stored.run.id),
    Column("started", "started", get=lambda stored: stored.run.started),
    Column("state", "state", get=lambda stored: "finished" if stored.run.finished else "not finished"),
    Column("ok", "ok", numeric=True),
    Column("other", "not ok", numeric=True, get=lambda stored: len(stored.run.records) - stored.ok),
    Column("cells", "study rows", numeric=True),
    Column("torch", "torch", get=lambda stored: stored.run.environment.torch),
    Column("command", "command", get=lambda stored: stored.run.command),
)
