"""What a report is made of. Cells hold exact values; a column knows how to get and show them; a format punctuates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    import pandas

Item = TypeVar("Item")
Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Item]):
    """A column: the `name` that code and files know it by, the `heading` people read, how a value is got and shown.

    `get` takes the cell's value from the item that a row is about; without it, it is the item's attribute `name`.
    """

    name: str
    heading: str
    show: Callable[[Any], str] = str
    numeric: bool = False
    get: Callable[[Item], Any] | None = field(default=None, kw_only=True, compare=False, repr=False)

    def value(self, item: Item) -> Any:
        """An item's exact value in this column; None where it has none."""
        return getattr(item, self.name) if self.get is None else self.get(item)

    def text(self, value: object) -> str:
        """A cell's value as people read it; nothing for None."""
        return "" if value is None else self.show(value)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of exact values under columns; `best` marks cells by row number and column name."""

    title: str
    columns: tuple[Column[Any], ...]
    rows: tuple[tuple[Any, ...], ...]
    best: frozenset[tuple[int, str]] = frozenset()
    note: str = ""

    @classmethod
    def of(cls, title: str, items: Iterable[Row], columns: Sequence[Column[Row]], note: str = "") -> Table:
        """One row an item; every column takes its own cell from it."""
        rows = tuple(tuple(column.value(item) for column in columns) for item in items)
        return cls(title=title, columns=tuple(columns), rows=rows, note=note)

    def values(self, name: str) -> list[Any]:
        """One column's cells, from the first row to the last."""
        place = next(place for place, column in enumerate(self.columns) if column.name == name)
        return [row[place] for row in self.rows]

    def named_rows(self) -> list[dict[str, Any]]:
        """Every row as column name -> cell."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def shown_rows(self) -> Iterator[list[tuple[Column[Any], str, bool]]]:
        """Every row as people read it: each cell's column, its text, and whether it is marked as the best."""
        for number, row in enumerate(self.rows):
            yield [
                (column, column.text(value), (number, column.name) in self.best)
                for column, value in zip(self.columns, row, strict=True)
            ]

    def with_row(self, **cells: Any) -> Table:
        """The same table with one row more, a total for example: cells by column name, None for the others."""
        row = tuple(cells.get(column.name) for column in self.columns)
        return dataclasses.replace(self, rows=(*self.rows, row))

    def with_column(self, column: Column[Any], values: Iterable[Any]) -> Table:
        """The same table with one column more, whose cells are known already, one a row."""
        rows = tuple((*row, value) for row, value in zip(self.rows, values, strict=True))
        return dataclasses.replace(self, columns=(*self.columns, column), rows=rows)

    def without_empty_columns(self) -> Table:
        """The same table without the columns in which no row has a value."""
        kept = [place for place in range(len(self.columns)) if any(row[place] is not None for row in self.rows)]
        columns = tuple(self.columns[place] for place in kept)
        return dataclasses.replace(self, columns=columns, rows=tuple(tuple(row[i] for i in kept) for row in self.rows))

    def first_rows(self, number: int, note: str) -> Table:
        """The same table with its first rows only; `note` then says where the others are, `{}` being how many."""
        hidden = len(self.rows) - number
        if hidden <= 0:
            return self
        return dataclasses.replace(self, rows=self.rows[:number], note=note.format(hidden))

    def mark(self, name: str, rows: Iterable[int]) -> Table:
        """The same table with the cells of one column marked in the rows of these numbers."""
        return dataclasses.replace(self, best=self.best | {(number, name) for number in rows})

    def mark_best(self, name: str, better: Literal["less", "more"] = "less") -> Table:
        """The same table with the best value of one column marked, in every row that has it."""
        values = self.values(name)
        known = [value for value in values if value is not None]
        winner = (min if better == "less" else max)(known, default=None)
        return self.mark(name, (number for number, value in enumerate(values) if known and value == winner))


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
    """A report in every form at once: facts and tables to read, exact `data` for CSV, a `document` for JSON.

    `data` has a column a field, with values as they are and missing ones None or NA.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    data: pandas.DataFrame
    document: Mapping[str, Any]
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = field(default=())
