"""`afftool compare`: two or more stored runs side by side, or several studies together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afftool.cli import options
from afftool.cli.output import Output
from afftool.cli.stored import opened
from afftool.errors import SpecError, StoreError
from afftool.record import Run
from afftool.report import comparison
from afftool.study.report.together import together
from afftool.study.stored import stored_results
from afftool.study.together import Told

compare = typer.Typer(rich_markup_mode=None, add_completion=False)


@compare.command(cls=options.RunsCommand)
def compare_runs(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs: numbers, latest, -2, or FILE.sqlite:NUMBER of another store [default: -2 -1]."),
    ] = None,
    out: options.Out = None,
    force: options.Force = False,
    formats: options.Formats = None,
    as_json: options.Json = False,
    store: options.StorePath = options.STORE,
) -> None:
    """Put two or more stored runs side by side, ratios to the first; of studies, say what they show together."""
    output = Output.of(out, formats, as_json, stem="compare", force=force)
    found = [_find(word, store) for word in runs or ["-2", "-1"]]
    told = [one for one in found if isinstance(one, Told)]
    measured = [one for one in found if isinstance(one, Run)]
    if told and measured:
        raise SpecError(
            f"run {told[0].run.id} is a study and run {measured[0].id} is none: they have nothing to compare",
            hint="give studies alone, or runs of other commands alone; `afftool runs` lists them",
        )
    output.deliver(together(told) if told else comparison(measured))


def _find(word: str, store: Path) -> Run | Told:
    """A run, or a study, by its number in the store, or by `FILE:NUMBER` in another."""
    path, colon, which = word.rpartition(":")
    if not colon and Path(word).is_file():
        path, which = word, "latest"
    try:
        with opened(Path(path or store)) as stored:
            run = stored.run(which)
            results = stored_results(stored, run.id)
            return run if results is None else Told(run, results)
    except StoreError as error:
        hint = f"{error.hint}; a run of another store is FILE:NUMBER" if error.hint else None
        raise StoreError(error.message, hint=hint) from error
