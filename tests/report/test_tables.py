"""Tables: a column gets its own cells, and everything is addressed by a column's name."""

from __future__ import annotations

import pytest

from afftool.tables import Column, Table

COLUMNS: tuple[Column[complex], ...] = (
    Column("real", "real part"),
    Column("size", "absolute", "{:.1f}".format, numeric=True, get=abs),
    Column("none", "nothing", get=lambda item: None),
)


@pytest.fixture
def table() -> Table:
    return Table.of("Numbers", [3 + 4j, 1j, -5 + 0j], COLUMNS, "a note")


def test_a_column_takes_its_cell_from_the_item_by_its_name_or_as_it_says(table: Table) -> None:
    assert table.rows == ((3.0, 5.0, None), (0.0, 1.0, None), (-5.0, 5.0, None))
    assert (table.title, table.note) == ("Numbers", "a note")


def test_columns_are_read_by_name(table: Table) -> None:
    assert table.values("size") == [5.0, 1.0, 5.0]
    assert table.named_rows()[1] == {"real": 0.0, "size": 1.0, "none": None}


def test_the_best_is_marked_in_every_row_that_has_it_and_stays_marked_where_columns_go(table: Table) -> None:
    marked = table.mark_best("size", "more").mark_best("real").mark_best("none").without_empty_columns()
    assert [column.name for column in marked.columns] == ["real", "size"]
    assert marked.best == {(0, "size"), (2, "size"), (2, "real")}
    assert [[(text, best) for _, text, best in row] for row in marked.shown_rows()][2] == [
        ("-5.0", True),
        ("5.0", True),
    ]


def test_a_total_names_its_cells_and_leaves_the_others_empty(table: Table) -> None:
    assert table.with_row(size=11.0).rows[-1] == (None, 11.0, None)


def test_a_column_of_known_cells_comes_last(table: Table) -> None:
    wider = table.with_column(Column("rank", "rank"), (1, 2, 3))
    assert wider.values("rank") == [1, 2, 3]
    with pytest.raises(ValueError, match="shorter"):
        table.with_column(Column("rank", "rank"), (1,))


def test_long_tables_say_how_many_rows_are_elsewhere(table: Table) -> None:
    assert table.first_rows(1, "{} more elsewhere").note == "2 more elsewhere"
    assert table.first_rows(3, "{} more elsewhere") is table
