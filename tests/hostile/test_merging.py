"""Merging the stores of others: what can be read is copied, all else is named, and one's own runs stay as they are."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_runs import ENVIRONMENT, record, timed
from made_up_studies import made

from afftool.errors import StoreError
from afftool.store import Store
from afftool.study.cells import CellRecord, StoredPlan
from afftool.study.grids import study
from afftool.study.stored import finished, study_rows

Ask = Callable[..., tuple[int, str, str]]


def stored(path: str, *batches: int, finish: bool = True) -> Path:
    with Store.open(path) as store:
        run = store.begin("afftool bench", ENVIRONMENT, "add")
        for batch in batches:
            store.append(run, timed("aff", 1.0, batch=batch, samples_ms=(1.0, 1.1)))
        if finish:
            store.finish(run)
    return Path(path)


def change(path: Path | str, sql: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(sql, values)
    connection.close()


def everything(path: Path | str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    tables = ("runs", "records", "cells", "finished", "sqlite_master")
    found = [(table, *row) for table in tables for row in connection.execute(f"SELECT * FROM {table}")]
    connection.close()
    return found


ENV = json.dumps(ENVIRONMENT.to_dict())
NEW_RUN = "INSERT INTO runs (id, uuid, started, command, environment) VALUES (?, ?, ?, ?, ?)"
AT = "2026-01-02T03:04:05+00:00"
POISON: dict[str, tuple[tuple[object, ...], ...]] = {
    "an environment that is none": ((NEW_RUN, 9, "9" * 32, AT, "bench", "[]"),),
    "an environment of other types": ((NEW_RUN, 9, "9" * 32, AT, "bench", '{"afftool": 1, "python": 2}'),),
    "a command that is a blob": ((NEW_RUN, 9, "9" * 32, AT, b"\xff", ENV),),
    "a start that is none": ((NEW_RUN, 9, "9" * 32, "", "bench", ENV),),
    "an identifier that is none": ((NEW_RUN, 9, "../../x", AT, "bench", ENV),),
    "a run of a number below 1": ((NEW_RUN, -9, "9" * 32, AT, "bench", ENV),),
    "a record that is no JSON": (("INSERT INTO records (run, record, samples_ms) VALUES (1, 'x', '[]')",),),
    "a record that is deep": (
        ("INSERT INTO records (run, record, samples_ms) VALUES (1, ?, '[]')", '{"x":' * 9000 + "1" + "}" * 9000),
    ),
    "samples that are none": (
        ("INSERT INTO records (run, record, samples_ms) VALUES (1, ?, '[NaN]')", '{"fusion": "aff"}'),
    ),
    "text that is not UTF-8": (
        ("INSERT INTO records (run, record, samples_ms) VALUES (1, CAST(x'7b22ff227d' AS TEXT), '[]')",),
    ),
    "a cell of a score of 7": (('INSERT INTO cells (run, cell) VALUES (1, \'{"identity": "x", "accuracy": 7}\')',),),
    "a plan that is none": (("INSERT INTO cells (run, cell) VALUES (1, '{}')",),),
    "a record of no run": (
        ("INSERT INTO records (run, record, samples_ms) VALUES (44, '{\"fusion\": \"a\"}', '[]')",),
    ),
    "an end of no run": (("INSERT INTO finished (run, at) VALUES (44, ?)", AT),),
    "an end that is no time": (("INSERT INTO finished (run, at) VALUES (2, 'soon')",),),
}


@pytest.mark.parametrize("name", POISON)
def test_what_is_broken_is_left_out_and_named_and_the_rest_is_merged(name: str, ask: Ask) -> None:
    stored("mine.sqlite", 1)
    theirs = stored("theirs.sqlite", 2, 3)
    stored("theirs.sqlite", 4, finish=False)
    for sql, *values in POISON[name]:
        change(theirs, str(sql), *values)
    code, out, err = ask("runs", "merge", "theirs.sqlite", "--store", "mine.sqlite")
    assert code == 2
    assert out == "theirs.sqlite: 2 runs added to mine.sqlite\n"
    assert "warning: theirs.sqlite: " in err
    assert "is left out" in err
    assert "error: not everything was merged" in err
    with Store.open("mine.sqlite", create=False) as store:
        assert [[row.batch for row in run.records] for run in store.runs()] == [[1], [2, 3], [4]]
        assert [run.finished for run in store.runs()] == [True, True, False]
        assert len(store.cells()) == 0
        assert store.hidden == []
    again = ask("runs", "merge", "theirs.sqlite", "--store", "mine.sqlite")
    assert again[:2] == (2, "theirs.sqlite: 0 runs added to mine.sqlite\n")


def test_a_file_that_is_no_store_stops_no_other_from_being_merged(ask: Ask) -> None:
    stored("mine.sqlite", 1)
    stored("good.sqlite", 2)
    Path("bad.sqlite").write_text("not a database" * 100)
    os.mkfifo("pipe.sqlite")
    code, out, err = ask("runs", "merge", "bad.sqlite", "pipe.sqlite", "good.sqlite", "--store", "mine.sqlite")
    assert (code, out) == (2, "good.sqlite: 1 runs added to mine.sqlite\n")
    assert "bad.sqlite is not a run store" in err
    assert "pipe.sqlite is a pipe" in err


def copied(path: Path, into: str, *sql: tuple[object, ...]) -> Path:
    """A copy of a store in which somebody changed what cannot be changed."""
    source, target = sqlite3.connect(path), sqlite3.connect(into)
    source.backup(target)
    triggers = target.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    with target:
        for name, _ in triggers:
            target.execute(f"DROP TRIGGER {name}")
        for statement, *values in sql:
            target.execute(str(statement), values)
        for _, text in triggers:
            target.execute(text)
    source.close()
    target.close()
    return Path(into)


@pytest.mark.parametrize(
    "sql",
    [
        ("UPDATE runs SET command = 'another'",),
        ('UPDATE records SET record = \'{"fusion": "other"}\' WHERE id = 1',),
        ("INSERT INTO records (run, record, samples_ms) VALUES (1, '{\"fusion\": \"other\"}', '[]')",),
    ],
)
def test_nobody_adds_to_a_run_of_ones_own_under_its_identifier(sql: tuple[str, ...], ask: Ask) -> None:
    mine = stored("mine.sqlite", 1, 2)
    copied(mine, "theirs.sqlite", sql)
    before = everything(mine)
    code, out, err = ask("runs", "merge", "theirs.sqlite", "--store", "mine.sqlite")
    assert (code, out) == (2, "theirs.sqlite: 0 runs added to mine.sqlite\n")
    assert "run 1 of mine.sqlite" in err
    assert everything(mine) == before


def test_a_store_that_an_older_afftool_poisoned_is_merged_into_again(ask: Ask) -> None:
    mine = stored("mine.sqlite", 1)
    change(mine, NEW_RUN, 2, "7" * 32, "", b"\x00", "[]")
    stored("good.sqlite", 2)
    assert ask("runs", "merge", "good.sqlite", "--store", "mine.sqlite")[0] == 0
    assert ask("runs", "prune", "2", "--store", "mine.sqlite")[0] == 0
    code, out, err = ask("runs", "--json", "--store", "mine.sqlite")
    assert (code, [run["run"] for run in json.loads(out)], err) == (0, [1, 3], "")


def test_a_store_is_merged_into_itself_without_a_change(ask: Ask) -> None:
    mine = stored("mine.sqlite", 1)
    before = everything(mine)
    code, out, _ = ask("runs", "merge", "mine.sqlite", "--store", "mine.sqlite")
    assert (code, out) == (0, "mine.sqlite: 0 runs added to mine.sqlite\n")
    assert everything(mine) == before


def test_pruned_runs_are_gone_for_good_and_their_numbers_are_not_given_again(ask: Ask) -> None:
    mine = stored("mine.sqlite", 1)
    stored("mine.sqlite", 2, 3)
    layout = [row for row in everything(mine) if row[0] == "sqlite_master"]
    code, out, _ = ask("runs", "prune", "latest", "--store", "mine.sqlite")
    assert (code, out) == (0, "removed from mine.sqlite: 1 runs, 2 records, 1 ends of runs\n")
    assert b'"batch": 3' not in mine.read_bytes()
    with Store.open(mine) as store:
        assert [run.id for run in store.runs()] == [1]
        assert store.begin("another", ENVIRONMENT) == 3
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store._connection.execute("DELETE FROM runs")
    assert sorted(map(str, layout)) == sorted(str(row) for row in everything(mine) if row[0] == "sqlite_master")


def test_pruning_what_is_not_there_removes_nothing(ask: Ask) -> None:
    mine = stored("mine.sqlite", 1)
    before = everything(mine)
    for words, why in ((("1", "7"), "no run 7"), ((), "no run is named"), (("newest",), "names no run")):
        code, _, err = ask("runs", "prune", *words, "--store", "mine.sqlite")
        assert (code, why in err) == (2, True), err
    assert everything(mine) == before
    assert ask("runs", "prune", "1", "--store", "none.sqlite")[0] == 2
    assert not Path("none.sqlite").exists()


def test_a_run_whose_cells_another_study_counts_is_pruned_only_by_force(ask: Ask) -> None:
    plan, known = made(study("scale"), lambda name, seed: 0.5)
    with Store.open("s.sqlite") as store:
        for rows in ((plan, *known.values()), (plan,)):
            run = store.begin("afftool ablate scale", ENVIRONMENT)
            for row in rows:
                store.append_cell(run, row.to_dict())
            store.finish(run)
    code, _, err = ask("runs", "prune", "1", "--store", "s.sqlite")
    assert (code, f"run 1 has {len(known)} trained cells that the study of run 2 counts" in err) == (2, True), err
    assert ask("runs", "prune", "2", "--store", "s.sqlite")[0] == 0
    assert ask("runs", "prune", "1", "--force", "--store", "s.sqlite")[0] == 0


def test_a_run_that_is_pruned_while_another_process_adds_to_it_is_told_there(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.sqlite") as writer, Store.open(tmp_path / "s.sqlite") as other:
        run = writer.begin("bench", ENVIRONMENT)
        other.prune([run])
        with pytest.raises(StoreError, match="the run is no longer in"):
            writer.append(run, record())


def test_a_study_goes_on_beside_broken_cells_of_a_merged_run(tmp_path: Path) -> None:
    plan, known = made(study("scale"), lambda name, seed: 0.5)
    with Store.open(tmp_path / "s.sqlite") as store:
        run = store.begin("afftool ablate scale", ENVIRONMENT)
        cells = list(known.values())
        for row in (plan, *cells):
            store.append_cell(run, row.to_dict())
        store.append_cell(run, cells[0].to_dict() | {"accuracy": float("nan")})
        store.append_cell(run, cells[1].to_dict() | {"accuracy": 7.0})
        store.append_cell(run, cells[2].to_dict() | {"cell": "none"})
        rows = study_rows(store)
        assert finished(rows) == known
        assert [row for row in rows if isinstance(row, StoredPlan)] == [plan]
        assert [row for row in rows if isinstance(row, CellRecord)] == cells
        assert [str(row).partition(":")[0] for row in store.hidden] == [
            f"study row {len(cells) + n} of run 1" for n in (2, 3, 4)
        ]
