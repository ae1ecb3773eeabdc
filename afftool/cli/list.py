"""`afftool list`: every name of the catalog, without importing anything behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from afftool import catalog, console
from afftool.cli import options
from afftool.formats.json import json_text
from afftool.registry import entry_points, unknown


def list_names(
    kind: Annotated[str | None, typer.Argument(help="fusions, hosts, backends, ...; everything if left out.")] = None,
    as_json: options.Json = False,
) -> None:
    """List the names afftool knows: fusions, hosts, backends, ..."""
    names = kinds()
    if kind is not None and kind not in names:
        raise unknown("kind of name", kind, names)
    shown = names if kind is None else {kind: names[kind]}
    if as_json:
        document = {
            name: [{"name": entry, "summary": summary} for entry, summary in entries.items()]
            for name, entries in shown.items()
        }
        console.write(json_text(document))
        return
    for position, (name, entries) in enumerate(shown.items()):
        if kind is None:
            console.out(("\n" if position else "") + name)
        console.pairs(entries, indent=0 if kind else 2)
    if kind is None:
        console.out("\n`afftool describe NAME` explains a fusion or a host; pkg.mod:Class names one of your own.")


def kinds() -> dict[str, dict[str, str]]:
    """Every mapping of the catalog by its name in lower case, and what installed packages add to the fusions."""
    names = {
        name.lower(): {key: _summary(entry) for key, entry in value.items()}
        for name, value in vars(catalog).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, Mapping)
    }
    added = entry_points("afftool.fusions").items()
    names["fusions"] |= {name: f"{path}, of an installed package" for name, path in added}
    return names


def _summary(entry: Any) -> str:
    return str(getattr(entry, "summary", None) or getattr(entry, "formula", ""))
