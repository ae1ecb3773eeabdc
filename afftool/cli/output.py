"""Where a command's report goes: `--out`, `--format` and `--json`, which mean the same in every command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from afftool import console
from afftool.formats import destinations, renderer, write
from afftool.spec import split_list
from afftool.tables import Report


@dataclass(frozen=True)
class Output:
    """The files a report goes to, each with its format, and whether stdout is for the JSON document alone."""

    formats: list[str]
    files: list[tuple[str, Path]]
    as_json: bool
    force: bool = False
    """Whether a file that is no report may be replaced."""

    @classmethod
    def of(cls, out: Path | None, formats: list[str] | None, as_json: bool, *, stem: str, force: bool = False) -> Self:
        """What the options say, refused before any work. Raises `UnknownName`, or `LoadError` for the path."""
        names = split_list(formats)
        return cls(names, destinations(out, names, stem=stem, force=force), as_json, force)

    def write(self, report: Report) -> None:
        """Write the report to its files. Raises `LoadError` if one cannot be written."""
        write(report, self.files, force=self.force)

    def tell(self) -> None:
        """Say where the files are."""
        for _, path in self.files:
            console.note(f"wrote {path}")

    def print(self, report: Report) -> None:
        """The whole report to stdout: as JSON if that was asked for, otherwise in each format, or in Markdown."""
        for name in ["json"] if self.as_json else self.formats or ["md"]:
            console.write(renderer(name)(report))

    def deliver(self, report: Report) -> None:
        """To the files, if there are any; to stdout if there are none, or if it is for the JSON document."""
        self.write(report)
        self.tell()
        if self.as_json or not self.files:
            self.print(report)
