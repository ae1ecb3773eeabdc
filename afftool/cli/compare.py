"""`afftool compare`: two or more stored runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afftool.cli import options
from afftool.cli.output import Output
from afftool.errors import StoreError
from afftool.record import Run
from afftool.report import comparison
from afftool.store import Store

compare = typer.Typer(rich_markup_mode=None, add_completion=False)


@compare.command(cls=options.RunsCommand)
def compare_runs(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs: numbers, latest, -2, or FILE.sqlite:NUMBER of another store [default: -2 -1]."),
    ] = None,
    out: options.Out = None,
    formats: options.Formats = None,
    as_json: options.Json = False,
    store: options.StorePath = options.STORE,
) -> None:
    """Put two or more stored runs side by side; ratios are to the first."""
    output = Output.of(out, formats, as_json, stem="compare")
    output.deliver(comparison([_find(word, store) for word in runs or ["-2", "-1"]]))


def _find(word: str, store: Path) -> Run:
    """A run by its number in the store, or by `FILE:NUMBER` in another."""
    path, colon, which = word.rpartition(":")
    if not colon and Path(word).is_file():
        path, which = word, "latest"
    try:
        with Store.open(path or store, create=False) as opened:
            return opened.run(which)
    except StoreError as error:
        hint = f"{error.hint}; a run of another store is FILE:NUMBER" if error.hint else None
        raise StoreError(error.message, hint=hint) from error
