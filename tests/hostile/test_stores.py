"""Stores that somebody sent: what is none is refused, nothing beside it is followed, no run vanishes in silence."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import ENVIRONMENT, record, timed
from made_up_studies import made

from afftool.errors import StoreError
from afftool.store import Store, file
from afftool.study.grids import study

Ask = Callable[..., tuple[int, str, str]]
GOOD = {name: value for name, value in timed("aff", 1.0).to_dict().items() if name != "samples_ms"}


def two_runs(path: Path) -> Path:
    with Store.open(path) as store:
        for fusion in ("aff", "iaff"):
            run = store.begin(f"afftool bench --fusion {fusion}", ENVIRONMENT, "add")
            store.append(run, timed("add", 0.5, samples_ms=(0.5, 0.6)))
            store.append(run, timed(fusion, 1.0, samples_ms=(1.0, 1.1)))
            store.finish(run)
    return path


def change(path: Path, sql: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(sql, values)
    connection.close()


def add_record(path: Path, text: object, samples: object = "[1.0]", run: object = 1) -> None:
    change(path, "INSERT INTO records (run, record, samples_ms) VALUES (?, ?, ?)", run, text, samples)


def of(**fields: Any) -> str:
    return json.dumps(GOOD | fields)


BROKEN_RECORDS = {
    "no JSON": ("{", "[]", "ends in the middle"),
    "no object": ("[]", "[]", "no JSON object"),
    "not a number": (of(latency_ms=float("nan")), "[]", "latency_ms is NaN"),
    "infinite": (of(latency_ms=float("inf")), "[]", "latency_ms is Infinity"),
    "beyond every number": (of().replace('"latency_ms": 1.0', '"latency_ms": 1e999'), "[]", "latency_ms is Infinity"),
    "below nothing": (of(latency_ms=-1.0), "[]", "out of range"),
    "beyond 64 bits": (of(params=2**70), "[]", "params is 1180591620717411303424"),
    "5,000 digits": (of().replace('"params": null', f'"params": {"9" * 5000}'), "[]", "too many digits"),
    "another type": (of(params="many"), "[]", "params is a whole number, not 'many'"),
    "a truth value": (of(params=True), "[]", "params is a whole number"),
    "deep": (of()[:-1] + f', "x": {"[" * 50_000}{"]" * 50_000}}}', "[]", "nested too deep"),
    "a blob": (of().encode(), "[]", "no text"),
    "not UTF-8": (b"\xff\xfe{}", "[]", "no text"),
    "a name of a megabyte": (of(fusion="a" * 1_000_000), "[]", "longer than 10,000"),
    "a number in the list of others": (of(process_samples=[1, -5]), "[]", "process_samples"),
    "samples that are none": (of(), '{"a": 1}', "samples are no list of numbers"),
    "samples that are no numbers": (of(), "[NaN]", "samples are no list of numbers"),
    "samples below 0": (of(), "[1.0, -2.0]", "sample that is no time"),
    "a million samples": (of(), f"[{'1,' * 1_000_000}1]", "more than 1,000,000 samples"),
}


@pytest.mark.parametrize("name", BROKEN_RECORDS)
def test_a_broken_record_is_named_and_hidden_and_never_its_neighbours(name: str, tmp_path: Path) -> None:
    text, samples, why = BROKEN_RECORDS[name]
    path = two_runs(tmp_path / "s.sqlite")
    add_record(path, text, samples)
    add_record(path, of(batch=99))
    with Store.open(path, create=False) as store:
        assert [record.batch for record in store.run(1).records] == [8, 8, 99]
        (hidden,) = store.hidden
        assert (hidden.table, hidden.id, hidden.run) == ("records", 5, 1)
        assert why in str(hidden)
        assert len(str(hidden)) < 400


def test_every_command_that_reads_names_broken_records_and_goes_on(ask: Ask) -> None:
    path = two_runs(Path("s.sqlite"))
    for name in ("another type", "infinite", "deep"):
        add_record(path, *BROKEN_RECORDS[name][:2])
    for words in (("report", "1", "--json"), ("compare", "1", "2", "--json"), ("runs", "--json")):
        code, out, err = ask(*words, "--store", "s.sqlite")
        assert code == 0, err
        for number, name in ((5, "another type"), (6, "infinite"), (7, "deep")):
            assert f"warning: s.sqlite: record {number} of run 1: " in err
            assert BROKEN_RECORDS[name][2] in err
        json.loads(out)
    assert ask("runs", "prune", "--broken", "--store", "s.sqlite")[1] == "removed from s.sqlite: 3 records\n"
    assert ask("runs", "--store", "s.sqlite")[::2] == (0, "")


def test_very_many_broken_rows_take_no_memory_and_are_all_removed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("afftool.store", "afftool.cli.stored", "afftool.cli.runs"):
        monkeypatch.setattr(f"{module}.MOST_HIDDEN", 20)
    path = two_runs(Path("s.sqlite"))
    change(path, f"INSERT INTO records (run, record, samples_ms) VALUES {', '.join(['(1, 1, 1)'] * 70)}")
    code, _, err = ask("runs", "--store", "s.sqlite")
    assert (code, err.count("\n"), "10 or more further rows" in err) == (0, 11, True)
    assert ask("runs", "prune", "--broken", "--store", "s.sqlite")[:2] == (0, "removed from s.sqlite: 70 records\n")
    assert ask("report", "1", "--store", "s.sqlite")[::2] == (0, "")


def test_text_that_is_not_utf8_hides_its_row_alone(ask: Ask) -> None:
    path = two_runs(Path("s.sqlite"))
    change(path, "INSERT INTO records (run, record, samples_ms) VALUES (1, CAST(x'7bff7d' AS TEXT), '[]')")
    code, out, err = ask("report", "1", "--json", "--store", "s.sqlite")
    assert (code, len(json.loads(out)["records"])) == (0, 2)
    assert "record 5 of run 1: it is not UTF-8 text" in err


RUN = {"uuid": "0" * 32, "started": "2026-01-02T03:04:05+00:00", "command": "afftool bench", "baseline": None}
BROKEN_RUNS: dict[str, tuple[dict[str, object], str]] = {
    "no environment": ({"environment": "{}"}, "missing required field"),
    "an environment of other types": ({"environment": '{"afftool": 1, "python": "3"}'}, "afftool is text, not 1"),
    "cores below 0": ({"environment": '{"afftool": "1", "python": "3", "cores": -1}'}, "its cores is -1"),
    "a deep environment": ({"environment": "[" * 50_000}, "its environment is nested too deep"),
    "a command that is a blob": ({"command": b"afftool"}, "its command is no text"),
    "a command of megabytes": ({"command": "a" * 2_000_000}, "its command is longer"),
    "no time": ({"started": "yesterday"}, "its start is no time"),
    "a time of no zone": ({"started": "2026-01-02T03:04:05"}, "its start is no time"),
    "an identifier of somebody else": ({"uuid": "me"}, "its identifier is none of ours"),
    "a number below 1": ({"id": -3}, "its number is not above 0"),
    "a baseline that is a number": ({"baseline": b"\x00"}, "its baseline is no text"),
}


def add_run(path: Path, **fields: object) -> None:
    row = {"id": 3, **RUN, "environment": json.dumps(ENVIRONMENT.to_dict()), **fields}
    change(path, f"INSERT INTO runs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())


@pytest.mark.parametrize("name", BROKEN_RUNS)
def test_a_broken_run_is_named_and_hidden_and_never_its_neighbours(name: str, tmp_path: Path) -> None:
    fields, why = BROKEN_RUNS[name]
    path = two_runs(tmp_path / "s.sqlite")
    add_run(path, **fields)
    with Store.open(path, create=False) as store:
        assert [run.id for run in store.runs()] == [1, 2]
        assert store.run("latest").id == 2
        (hidden,) = store.hidden
        assert str(hidden).startswith(f"run {fields.get('id', 3)}: ")
        assert why in str(hidden)


def test_a_broken_run_is_told_by_every_command_and_can_be_removed(ask: Ask) -> None:
    path = two_runs(Path("s.sqlite"))
    add_run(path, environment="{}")
    add_run(path, id=-3, uuid="1" * 32)
    add_record(path, of(), run=3)
    code, out, err = ask("runs", "--json", "--store", "s.sqlite")
    assert (code, [run["run"] for run in json.loads(out)]) == (0, [1, 2])
    assert "warning: s.sqlite: run 3: " in err
    assert "warning: s.sqlite: run -3: " in err
    code, _, err = ask("report", "3", "--store", "s.sqlite")
    assert (code, "hint: `afftool runs prune 3` removes it" in err) == (2, True)
    assert ask("runs", "prune", "3", "--store", "s.sqlite")[:2] == (0, "removed from s.sqlite: 1 runs, 1 records\n")
    assert ask("runs", "prune", "--broken", "--store", "s.sqlite")[:2] == (0, "removed from s.sqlite: 1 runs\n")
    code, out, err = ask("runs", "--json", "--store", "s.sqlite")
    assert (code, len(json.loads(out)), err) == (0, 2, "")


def test_rows_of_no_run_are_named_and_counted_in_no_study(ask: Ask) -> None:
    path = two_runs(Path("s.sqlite"))
    add_record(path, of(), run=77)
    change(path, 'INSERT INTO cells (run, cell) VALUES (78, \'{"identity": "x"}\')')
    change(path, "INSERT INTO finished (run, at) VALUES (79, 'now')")
    code, _, err = ask("runs", "--store", "s.sqlite")
    assert code == 0
    assert "record 5 of run 77: there is no such run" in err
    with Store.open(path, create=False) as store:
        assert store.cells() == []


def test_what_is_infinite_for_a_reason_is_stored_and_read_as_that(tmp_path: Path, ask: Ask) -> None:
    odd = record(error_vs_eager=float("inf"), rms_error_vs_eager=float("inf"), status="failed", reason="not eager's")
    with Store.open(tmp_path / "s.sqlite") as store:
        store.append(store.begin("bench", ENVIRONMENT), odd)
        assert store.run().records == (odd,)
        assert store.hidden == []
    code, out, _ = ask("report", "--json", "--store", "s.sqlite")
    assert (code, json.loads(out)["records"][0]["error_vs_eager"]) == (0, None)


def test_half_a_character_of_a_files_name_is_stored_as_a_question_mark(tmp_path: Path, ask: Ask) -> None:
    with Store.open(tmp_path / "s.sqlite") as store:
        run = store.begin("bench \udcff", ENVIRONMENT)
        store.append(run, record(status="failed", reason="no file \udcff"))
        assert store.run().command == "bench ?"
        assert store.run().records[0].reason == "no file ?"
    assert ask("report", "--store", "s.sqlite")[0] == 0


NO_STORES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an endless view": (
        lambda path: drop_and(
            path,
            "runs",
            "CREATE VIEW runs AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id, "
            "'0' AS uuid, '' AS started, '' AS command, '{}' AS environment, NULL AS baseline FROM n",
        ),
        "'runs' is none of ours",
    ),
    "a generated column": (
        lambda path: drop_and(
            path, "cells", "CREATE TABLE cells (id INTEGER PRIMARY KEY, run INTEGER, cell TEXT AS (upper(run)))"
        ),
        "'cells' is none of ours",
    ),
    "a table more": (lambda path: change(path, "CREATE TABLE more (a)"), "'more' is none of ours"),
    "a virtual table": (
        lambda path: change(path, "CREATE VIRTUAL TABLE more USING fts5(a)"), "'more' is none of ours",
    ),
    "a trigger more": (
        lambda path: change(path, "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM finished; END"),
        "trigger 't' is none of ours",
    ),
    "a trigger less": (lambda path: change(path, "DROP TRIGGER runs_no_delete"), "it lacks a part"),
    "an index less": (lambda path: change(path, "DROP INDEX records_by_run"), "it lacks a part"),
    "layout 0": (lambda path: change(path, "PRAGMA user_version = 0"), "layout 0"),
    "a layout below 0": (lambda path: change(path, "PRAGMA user_version = -5"), "layout -5"),
    "another program's number": (lambda path: change(path, "PRAGMA application_id = 7"), "not a run store"),
}  # fmt: skip


def drop_and(path: Path, table: str, sql: str) -> None:
    change(path, f"DROP TABLE {table}")
    change(path, sql)


@pytest.mark.parametrize("name", NO_STORES)
@pytest.mark.parametrize("create", [False, True])
def test_what_is_laid_out_otherwise_is_no_store(name: str, create: bool, tmp_path: Path) -> None:
    make, why = NO_STORES[name]
    make(two_runs(tmp_path / "s.sqlite"))
    before = (tmp_path / "s.sqlite").read_bytes()
    with pytest.raises(StoreError, match=why):
        Store.open(tmp_path / "s.sqlite", create=create)
    assert (tmp_path / "s.sqlite").read_bytes() == before


def test_reading_leaves_a_store_and_its_folder_as_they_are(place: Any, ask: Ask) -> None:
    two_runs(place.folder / "s.sqlite")
    before = place.content()
    for words in (("runs",), ("report",), ("compare",)):
        assert ask(*words, "--store", "s.sqlite")[0] == 0
    assert place.content() == before


@pytest.mark.parametrize("make", ["ON records (run) WHERE id % 2", "ON records (id)"])
@pytest.mark.parametrize("create", [False, True])
def test_an_index_that_hides_rows_is_damage_and_no_rows_vanish(make: str, create: bool, tmp_path: Path) -> None:
    path = two_runs(tmp_path / "s.sqlite")
    sql = "CREATE INDEX records_by_run ON records (run)"
    connection = sqlite3.connect(path)
    connection.executescript(
        f"DROP INDEX records_by_run; CREATE INDEX records_by_run {make}; PRAGMA writable_schema = ON;"
        f"UPDATE sqlite_master SET sql = '{sql}' WHERE name = 'records_by_run';"
    )
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"is damaged: .*records_by_run"):
        Store.open(path, create=create)
    assert path.read_bytes() == before


@pytest.mark.parametrize("table", ["runs", "records"])
def test_a_store_whose_numbers_are_used_up_is_read_and_copied_and_not_called_a_full_disk(
    table: str, ask: Ask, refuses: Callable[..., str]
) -> None:
    path = two_runs(Path("s.sqlite"))
    change(path, "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = ?", table)
    words = refuses(2, "bench", "-f", "add", "-m", "cost", "--store", "s.sqlite")
    assert f"s.sqlite has no numbers left for {table}" in words
    assert ask("report", "--store", "s.sqlite")[0] == 0
    assert ask("runs", "merge", "s.sqlite", "--store", "t.sqlite")[0] == 0
    with Store.open("t.sqlite", create=False) as store:
        assert [(run.id, len(run.records)) for run in store.runs()] == [(1, 2), (2, 2)]


def test_an_endless_view_hangs_no_command(place: Any, refuses: Callable[..., str]) -> None:
    NO_STORES["an endless view"][0](two_runs(place.folder / "s.sqlite"))
    assert "is none of ours" in refuses(2, "runs", "--store", "s.sqlite", timeout_s=60)


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_pipe_as_a_store_or_beside_one_is_never_opened(suffix: str, create: bool, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    if suffix:
        two_runs(path)
    os.mkfifo(f"{path}{suffix}")
    with pytest.raises(StoreError, match="is a pipe" if not suffix else "no plain file"):
        Store.open(path, create=create)
    assert stat.S_ISFIFO(os.stat(f"{path}{suffix}").st_mode)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_link_beside_a_store_is_not_followed(suffix: str, there: bool, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    if there:
        two_runs(path)
    (tmp_path / "precious").write_text("mine")
    Path(f"{path}{suffix}").symlink_to("precious")
    with pytest.raises(StoreError, match="no plain file"):
        Store.open(path)
    assert (tmp_path / "precious").read_text() == "mine"
    assert path.exists() == there


def test_a_device_and_a_link_to_nothing_are_no_stores(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a device"):
        Store.open("/dev/zero", create=False)
    (tmp_path / "s.sqlite").symlink_to("elsewhere/file")
    for create in (True, False):
        with pytest.raises(StoreError, match="link to nothing"):
            Store.open(tmp_path / "s.sqlite", create=create)
    assert not (tmp_path / "elsewhere").exists()


def journal_that_deletes(path: Path, victim: Path) -> None:
    """A journal of one database among several, as SQLite writes it: the file that binds them is deleted in the end."""
    magic, name = bytes.fromhex("d9d505f920a163d7"), str(victim).encode()
    header = magic + struct.pack(">IIIII", 0, 1234, path.stat().st_size // 4096, 512, 4096)
    end = struct.pack(">I", 0x40000000 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + magic
    Path(f"{path}-journal").write_bytes(header.ljust(512, b"\0") + end)


def in_one_file(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()


@pytest.mark.parametrize("create", [False, True])
def test_a_journal_beside_a_store_has_no_other_file_deleted(create: bool, tmp_path: Path) -> None:
    path, victim = two_runs(tmp_path / "s.sqlite"), tmp_path / "precious"
    in_one_file(path)
    victim.write_text("mine")
    journal_that_deletes(path, victim)
    with pytest.raises(StoreError, match="would have another file deleted"):
        Store.open(path, create=create)
    assert victim.read_text() == "mine"


@contextmanager
def nobody_in_particular() -> Iterator[None]:
    """Without root's leave to write anywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that anybody may read; pytest's own are root's alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_store_that_nobody_can_write_is_read_as_it_is(open_folder: Path) -> None:
    path = two_runs(open_folder / "s.sqlite")
    open_folder.chmod(0o555)
    with nobody_in_particular(), Store.open(path, create=False) as store:
        assert len(store.runs()) == 2
    assert [found.name for found in open_folder.iterdir()] == ["s.sqlite"]


def test_a_copy_with_a_leftover_log_that_cannot_be_read_says_so_and_shows_no_part(open_folder: Path) -> None:
    path, kept = open_folder / "s.sqlite", open_folder / "kept"
    kept.mkdir()
    two_runs(path)
    with Store.open(path) as store:
        store.finish(store.begin("the third", ENVIRONMENT))
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", kept)
    kept.chmod(0o555)
    with nobody_in_particular(), pytest.raises(StoreError, match=r"a part of it is in s\.sqlite-wal") as refusal:
        Store.open(kept / "s.sqlite", create=False)
    assert "copy both" in str(refusal.value.hint)
    kept.chmod(0o755)
    with Store.open(kept / "s.sqlite", create=False) as store:
        assert len(store.runs()) == 3


@pytest.mark.parametrize("create", [False, True])
def test_a_lock_that_is_held_is_waited_for_and_never_read_through(
    create: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = two_runs(tmp_path / "s.sqlite")
    in_one_file(path)
    monkeypatch.setattr(file, "BUSY_TIMEOUT_S", 0.2)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    holder.execute("INSERT INTO finished VALUES (9, 'half done')")
    with pytest.raises(StoreError, match="stayed locked"):
        Store.open(path, create=create)
    holder.execute("ROLLBACK")
    holder.close()
    with Store.open(path, create=False) as store:
        assert len(store.runs()) == 2


def test_a_change_that_a_killed_process_left_half_done_is_undone_by_the_next_reader(tmp_path: Path) -> None:
    path = two_runs(tmp_path / "s.sqlite")
    in_one_file(path)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")  # so that the file is written before the change is complete
    writer.execute("BEGIN IMMEDIATE")
    for _ in range(200):
        writer.execute("INSERT INTO records (run, record, samples_ms) VALUES (1, ?, '[]')", (of(),))
    left = tmp_path / "left"
    left.mkdir()
    for suffix in ("", "-journal"):
        shutil.copy(f"{path}{suffix}", left)
    writer.execute("ROLLBACK")
    writer.close()
    with Store.open(left / "s.sqlite", create=False) as store:
        assert [len(run.records) for run in store.runs()] == [2, 2]
    assert [found.name for found in left.iterdir()] == ["s.sqlite"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_store_that_is_gone_while_runs_are_added_says_so(replaced: bool, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with Store.open(path) as store:
        run = store.begin("bench", ENVIRONMENT)
        path.unlink()
        if replaced:
            path.write_bytes(b"")
        with pytest.raises(StoreError, match="was removed or replaced while it was open"):
            store.append(run, record())


def test_the_order_of_runs_is_theirs_whatever_the_clock_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    with Store.open(tmp_path / "s.sqlite") as store:
        for year in (2026, 1999, 2030, 2001):
            monkeypatch.setattr("afftool.store._now", lambda year=year: f"{year}-01-01T00:00:00+00:00")
            store.finish(store.begin(f"bench in {year}", ENVIRONMENT))
        assert [run.started[:4] for run in store.runs()] == ["2026", "1999", "2030", "2001"]
        assert store.run("latest").command == "bench in 2001"


@pytest.mark.parametrize("create", [False, True])
def test_a_file_of_holes_is_no_store(create: bool, tmp_path: Path) -> None:
    path = two_runs(tmp_path / "s.sqlite")
    os.truncate(path, 2**40)
    with path.open("r+b") as header:  # what SQLite believes is the number of pages that the header says
        header.seek(28)
        header.write(struct.pack(">I", 2**40 // 4096))
    with pytest.raises(StoreError, match="1,024 GiB"):
        Store.open(path, create=create)


def test_more_rows_than_one_store_may_hold_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = two_runs(tmp_path / "s.sqlite")
    monkeypatch.setattr(file, "MOST_ROWS", 3)
    with pytest.raises(StoreError, match="4 rows of records, more than 3"):
        Store.open(path, create=False)


def test_a_question_that_takes_too_long_is_ended_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.sqlite"
    with Store.open(path) as store:
        run = store.begin("bench", ENVIRONMENT)
    connection = sqlite3.connect(path)
    with connection:
        rows = [(run, of(), "[]")] * 20_000
        connection.executemany("INSERT INTO records (run, record, samples_ms) VALUES (?, ?, ?)", rows)
    connection.close()
    with Store.open(path, create=False) as store:
        monkeypatch.setattr(file, "READ_AT_MOST_S", -1.0)
        with pytest.raises(StoreError, match="took longer than"):
            store.runs()


def test_a_study_whose_plan_cannot_be_read_says_so(ask: Ask) -> None:
    path = two_runs(Path("s.sqlite"))
    for run, row in ((1, "{"), (2, json.dumps({"study": "x = " + "[" * 500}))):
        change(path, "INSERT INTO cells (run, cell) VALUES (?, ?)", run, row)
        code, _, err = ask("report", str(run), "--store", "s.sqlite")
        assert code == 2
        assert f"error: s.sqlite: the plan of run {run} cannot be read" in err
    code, out, err = ask("runs", "--json", "--store", "s.sqlite")
    assert (code, [run["cells"] for run in json.loads(out)]) == (0, [0, 0])
    assert "study row 1 of run 1" in err
    plan, _ = made(study("scale"), lambda name, seed: 0.5)
    for text in (f"x = {'[' * 5000}", "x = 1", ""):
        with Store.open(path) as store:
            run = store.begin("afftool ablate", ENVIRONMENT)
            store.append_cell(run, plan.to_dict() | {"study": text})
        code, _, err = ask("report", "--store", "s.sqlite")
        assert (code, "error: the plan of a study cannot be read: " in err) == (2, True), err


def test_a_study_of_infinite_losses_is_a_document_with_null_for_them(ask: Ask) -> None:
    plan, known = made(replace(study("scale"), seeds=(0,)), lambda name, seed: 0.5)
    with Store.open("s.sqlite") as store:
        run = store.begin("afftool ablate", ENVIRONMENT)
        store.append_cell(run, plan.to_dict())
        for cell in known.values():
            store.append_cell(run, replace(cell, losses=(2.0, float("inf"))).to_dict())
    code, out, err = ask("report", "--json", "--store", "s.sqlite")
    assert code == 0, err
    assert [cell["losses"] for cell in json.loads(out)["cells"]] == [[2.0, None]] * len(known)
