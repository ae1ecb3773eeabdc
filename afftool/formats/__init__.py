"""How a report is written down. Each format is one function, `render(report) -> text`, and knows only punctuation.

What is there to punctuate stands in `afftool.tables`: `report.facts`, `tables` (`table.shown_rows()` walks the
cells as people read them), `charts` and `notes`; or `report.data` and `report.document`, which are exact. A format's
name in the catalog is also the suffix of its files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from afftool import catalog
from afftool.errors import LoadError, UserError
from afftool.registry import load, unknown
from afftool.tables import Report

_SUFFIXES = {**{f".{name}": name for name in catalog.FORMATS}, ".markdown": "md", ".htm": "html"}


def renderer(name: str) -> Callable[[Report], str]:
    """The `render` of a format. Raises `UnknownName`."""
    if name not in catalog.FORMATS:
        raise unknown("format", name, catalog.FORMATS)
    render: Callable[[Report], str] = load(catalog.FORMATS[name].path)
    return render


def destinations(out: Path | None, formats: list[str], *, stem: str) -> list[tuple[str, Path]]:
    """Which format goes to which file: a file's own suffix decides, a folder gets one file a format.

    Without formats a folder gets Markdown and CSV. Raises `UnknownName`, or `LoadError` for a path that cannot be.
    """
    for name in formats:
        renderer(name)
    if out is None:
        return []
    suffix = out.suffix.lower()
    if suffix and not out.is_dir():
        if not formats and suffix not in _SUFFIXES:
            raise LoadError(f"no format writes {suffix} files", hint=f"use {', '.join(sorted(_SUFFIXES))}, or --format")
        wanted = formats or [_SUFFIXES[suffix]]
        files = [(name, out if len(wanted) == 1 else out.with_suffix(f".{name}")) for name in wanted]
    else:
        files = [(name, out / f"{stem}.{name}") for name in formats or ["md", "csv"]]
    for _, path in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LoadError(f"cannot write to {path}: {error}", hint="name another path by --out") from error
        if path.is_dir():
            raise LoadError(f"{path} is a folder", hint="name a file in it by --out")
    return files


def refuse_unwritable(path: Path, *, option: str, folder: bool = False, error: type[UserError] = LoadError) -> None:
    """Raises `error` where a file, or a file in a `folder`, cannot be written, before any work is done for it.

    Nothing is left there but the folders, which are made. `option` is what names another path.
    """
    try:
        if folder:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                return
        existed = path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a").close()
        if not existed:
            path.unlink()
    except OSError as problem:
        hint = f"name another {'folder' if folder else 'file'} by {option}"
        raise error(f"{path} cannot be written: {problem.strerror}", hint=hint) from problem


def write(report: Report, files: list[tuple[str, Path]]) -> None:
    """Write the report to each file, in its format. Raises `LoadError` if one cannot be written."""
    for name, path in files:
        try:
            path.write_text(renderer(name)(report), encoding="utf-8", newline="")
        except OSError as error:
            raise LoadError(f"cannot write {path}: {error}", hint="name another path by --out") from error
