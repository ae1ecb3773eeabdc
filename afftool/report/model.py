"""What a report is made of. Cells hold exact values; a column knows how to show them; a format adds punctuation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


def plain(value: object) -> str:
    """A value as text, as it is."""
    return str(value)


@dataclass(frozen=True)
class Column:
    """A column: the stored field's `name`, the `heading` people read, and how a value is shown."""

    name: str
    heading: str
    show: Callable[[Any], str] = plain
    numeric: bool = False

    def text(self, value: object) -> str:
        """A cell's value as people read it; nothing for None."""
        return "" if value is None else self.show(value)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of exact values under columns; `best` marks cells by (row, column) position."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    best: frozenset[tuple[int, int]] = frozenset()
    note: str = ""

    def without_empty_columns(self) -> Table:
        """The same table without the columns in which no row has a value."""
        kept = [i for i in range(len(self.columns)) if any(row[i] is not None for row in self.rows)]
        return self.select(kept)

    def select(self, kept: Sequence[int]) -> Table:
        """The same table with the columns at these positions only."""
        place = {old: new for new, old in enumerate(kept)}
        return Table(
            title=self.title,
            columns=tuple(self.columns[i] for i in kept),
            rows=tuple(tuple(row[i] for i in kept) for row in self.rows),
            best=frozenset((row, place[column]) for row, column in self.best if column in place),
            note=self.note,
        )


@dataclass(frozen=True)
class Bar:
    """One value with its interval, where there is one."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """Values of one quantity, drawn as bars from zero."""

    title: str
    show: Callable[[float], str]
    bars: tuple[Bar, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report in every form at once: facts and tables to read, exact `data` for CSV, a `document` for JSON."""

    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    data: Table
    document: Mapping[str, Any]
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = field(default=())
