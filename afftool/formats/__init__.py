"""How a report is written down. Each format is one function, `render(report) -> text`, and knows only punctuation.

What is there to punctuate stands in `afftool.tables`: `report.facts`, `tables` (`table.shown_rows()` walks the
cells as people read them), `charts` and `notes`; or `report.data` and `report.document`, which are exact. A format's
name in the catalog is also the suffix of its files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from afftool import catalog, written
from afftool.errors import LoadError
from afftool.registry import load, unknown
from afftool.tables import Report
from afftool.written import Kind

_SUFFIXES = {**{f".{name}": name for name in catalog.FORMATS}, ".markdown": "md", ".htm": "html"}
_MARK = "written by afftool"
_MARKED = {
    "md": lambda text: f"<!-- {_MARK} -->\n\n{text}",
    "html": lambda text: text.replace("\n", f"\n<!-- {_MARK} -->\n", 1),
    "csv": lambda text: f"# {_MARK}\n{text}",
}
"""How a file says whose it is, at its head, where no reader minds; JSON does by its first keys."""
_OURS = re.compile(
    rf"<!-- {_MARK} -->\n\n# |<!doctype html>\n<!-- {_MARK} -->\n|# {_MARK}\n|{{\n \"schema\": \d+,\n \"|"
    # as reports began before they were marked
    r"(?:# Title: |# |<!doctype html>[^<]*<html[^<]*<head[^<]*<meta[^<]*<meta[^<]*<title>)"
    r"(?:afftool (?:bench|compare): |Ablation: |Inspection of |Profile of )"
)


def renderer(name: str) -> Callable[[Report], str]:
    """The `render` of a format. Raises `UnknownName`."""
    if name not in catalog.FORMATS:
        raise unknown("format", name, catalog.FORMATS)
    render: Callable[[Report], str] = load(catalog.FORMATS[name].path)
    return render


def is_report(head: bytes) -> bool:
    """Whether a file that begins so is a report that `write` wrote."""
    return bool(_OURS.match(head.decode(errors="replace")))


REPORT = Kind(name="report of afftool", is_ours=is_report, instead="name another file by --out", force="--force")


def destinations(out: Path | None, formats: list[str], *, stem: str, force: bool = False) -> list[tuple[str, Path]]:
    """Which format goes to which file: a file's own suffix decides, a folder gets one file a format.

    Without formats a folder gets Markdown and CSV, a pipe or a device Markdown. Nothing is made yet. Raises
    `UnknownName`, or `LoadError` for a path that cannot be, or that holds what is no report unless that is to be
    replaced by `force`.
    """
    for name in formats:
        renderer(name)
    if out is None:
        return []
    try:
        files = _files(out, formats, stem)
    except OSError as error:
        raise LoadError(f"{out} cannot be written: {error.strerror}", hint="name another path by --out") from error
    for _, path in files:
        written.refuse(path, REPORT, force=force)
    return files


def _files(out: Path, formats: list[str], stem: str) -> list[tuple[str, Path]]:
    if written.is_stream(out):
        if len(formats) > 1:
            raise LoadError(f"{out} takes one format, not {len(formats)}", hint="name one by --format, or a folder")
        return [(formats[0] if formats else "md", out)]
    suffix = out.suffix.lower()
    if not suffix or out.is_dir():
        return [(name, out / f"{stem}.{name}") for name in formats or ["md", "csv"]]
    if not formats and suffix not in _SUFFIXES:
        raise LoadError(f"no format writes {suffix} files", hint=f"use {', '.join(sorted(_SUFFIXES))}, or --format")
    wanted = formats or [_SUFFIXES[suffix]]
    return [(name, out if len(wanted) == 1 else out.with_suffix(f".{name}")) for name in wanted]


def write(report: Report, files: list[tuple[str, Path]], *, force: bool = False) -> None:
    """Write the report to each file, in its format, with a mark. Raises `LoadError` if one cannot be written."""
    for name, path in files:
        marked: Callable[[str], str] = _MARKED.get(name, str)
        written.write(path, marked(renderer(name)(report)), REPORT, force=force)
