"""`afftool runs`: what has been run; `runs merge`: the runs of other stores, brought together; `runs prune`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from afftool import console
from afftool.cli import options
from afftool.cli.stored import name_hidden, opened, say_left
from afftool.errors import SpecError, StoreError
from afftool.formats.json import json_text
from afftool.record import Run
from afftool.store import MOST_HIDDEN, Store
from afftool.study.rows import check_none_lost, read_row, read_whole_row
from afftool.tables import Column, Table

runs = typer.Typer(rich_markup_mode=None, add_completion=False)


@runs.callback(invoke_without_command=True)
def list_runs(context: typer.Context, store: options.StorePath = options.STORE, as_json: options.Json = False) -> None:
    """List the stored runs. What cannot be read is named on stderr and left out."""
    if context.invoked_subcommand:
        return
    with opened(store) as stored:
        cells = Counter(run for run, _ in stored.read_cells(read_row))
        listed = [_Stored(run, cells[run.id]) for run in stored.runs()]
    table = Table.of("Runs", listed, _COLUMNS)
    say_left(store, clear=False)
    if as_json:
        console.write(json_text(table.named_rows()))
    else:
        console.table(table)


@runs.command()
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Stores whose runs are copied into the one of --store.")],
    store: options.StorePath = options.STORE,
) -> None:
    """Copy the runs of other stores into one, for example those of a CI matrix. A run already there is left out.

    What cannot be read, and what says it is a run that is another one here, is named and left out; so is a file that is
    no store. All else is copied, and the exit code is 2.
    """
    left = 0
    with Store.open(store) as into:
        for path in sources:
            try:
                with Store.open(path, create=False) as source:
                    added = into.merge(source, read_whole_row)
                    console.out(f"{path}: {added} runs added to {store}")
                    name_hidden(path, source.hidden, "is left out")
                    left += len(source.hidden)
            except StoreError as error:
                console.error(error.message, error.hint)
                left += 1
    if left:
        raise StoreError(
            "not everything was merged, see above", hint="what is not named there was; no store was harmed"
        )


@runs.command(cls=options.RunsCommand)
def prune(
    which: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="Runs: numbers, latest, -2 for the last but one.")
    ] = None,
    broken: Annotated[bool, typer.Option("--broken", help="Also whatever cannot be read, in any run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also cells that other runs' studies count.")] = False,
    store: options.StorePath = options.STORE,
) -> None:
    """Remove runs from a store for good, with their records and their studies' cells. No number is given again.

    A study counts cells that earlier runs trained. A run that holds such a cell, and no other does, is kept unless
    --force is given: `ablate` would train it again.
    """
    if not which and not broken:
        raise SpecError("no run is named", hint="`afftool runs prune 3`, or --broken for what cannot be read")
    with Store.open(store, create=False):  # makes no store where there is none
        pass
    with Store.open(store) as stored:
        readable = stored.read_all(read_row)
        gone = stored.named(which or [])
        if not force:
            check_none_lost(readable, gone)
        count = Counter(stored.prune(gone, hidden := stored.hidden if broken else []))
        while len(hidden) == MOST_HIDDEN:
            stored.read_all(read_row)
            count.update(stored.prune((), hidden := stored.hidden))
    told = [f"{count[table]:,} {name}" for table, name in _ROWS.items() if count[table]]
    console.out(f"removed from {store}: {', '.join(told) or 'nothing'}")


_ROWS = {"runs": "runs", "records": "records", "cells": "study rows", "finished": "ends of runs"}


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
