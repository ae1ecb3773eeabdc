from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_runs import ENVIRONMENT, record, timed

from afftool.errors import StoreError
from afftool.store import LAYOUT, Store

WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from made_up_runs import ENVIRONMENT, record
from afftool.store import Store
with Store.open(sys.argv[1]) as store:
    run = store.begin("writer", ENVIRONMENT)
    for number in range(int(sys.argv[2])):
        store.append(run, record(batch=number + 1))
        print(number, flush=True)
    store.finish(run)
"""


def writer(path: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), str(count), str(Path(__file__).parent)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "runs.sqlite"


def test_a_run_comes_back_exactly_as_it_was_stored(path: Path) -> None:
    samples = (0.1, 1 / 3, 2e-9, 12345678.9)
    rows = [
        timed("aff", 1 / 3, samples_ms=samples, uncounted_ops={"aten.fft": 2}, params=2**53 + 1),
        record("iaff", status="oom", reason='"quoted"\nand more'),
    ]
    with Store.open(path) as store:
        run_id = store.begin("afftool bench", ENVIRONMENT, "add")
        for row in rows:
            store.append(run_id, row)
        store.finish(run_id)
    with Store.open(path, create=False) as store:
        run = store.run("latest")
    assert list(run.records) == rows
    assert run.environment == ENVIRONMENT
    assert (run.id, run.baseline, run.command, run.finished) == (run_id, "add", "afftool bench", True)


def test_a_run_that_was_not_finished_says_so(path: Path) -> None:
    with Store.open(path) as store:
        run_id = store.begin("afftool bench", ENVIRONMENT)
        store.append(run_id, record())
        assert not store.run(run_id).finished
        store.finish(run_id)
        assert store.run(run_id).finished


def test_runs_are_found_by_number_and_counted_from_the_latest(path: Path) -> None:
    with Store.open(path) as store:
        ids = [store.begin(f"run {n}", ENVIRONMENT) for n in range(3)]
        assert [store.find(word) for word in ("latest", "-1", -1, "latest~0")] == [ids[2]] * 4
        assert [store.find(word) for word in ("latest~1", "-2", str(ids[1]), ids[1])] == [ids[1]] * 4
        for nonsense in ("0", "-4", "99", "newest", "latest~3"):
            with pytest.raises(StoreError):
                store.find(nonsense)


def test_reading_never_makes_a_store(path: Path) -> None:
    with pytest.raises(StoreError, match="no run store"):
        Store.open(path, create=False)
    assert not path.parent.exists()


@pytest.mark.parametrize("table", ["runs", "records", "cells", "finished"])
@pytest.mark.parametrize("change", ["UPDATE {} SET rowid = 9", "DELETE FROM {}"])
def test_stored_rows_can_be_neither_changed_nor_deleted(path: Path, table: str, change: str) -> None:
    with Store.open(path) as store:
        run_id = store.begin("bench", ENVIRONMENT)
        store.append(run_id, record())
        store.append_cell(run_id, {"identity": "a"})
        store.finish(run_id)
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(change.format(table))
    connection.close()


def test_a_kill_loses_no_record_that_was_appended(path: Path) -> None:
    process = writer(path, 100_000)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(25)]
    os.kill(process.pid, signal.SIGKILL)
    told += [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    with Store.open(path) as store:
        run = store.run("latest")
        assert not run.finished
        assert len(run.records) >= len(told)
        assert [r.batch for r in run.records] == list(range(1, len(run.records) + 1))
        assert store.begin("another", ENVIRONMENT) == run.id + 1


def test_two_processes_writing_at_once_lose_nothing(path: Path) -> None:
    processes = [writer(path, 60) for _ in range(2)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    with Store.open(path, create=False) as store:
        runs = store.runs()
    assert len(runs) == 2
    for run in runs:
        assert run.finished
        assert [r.batch for r in run.records] == list(range(1, 61))


def test_a_store_being_written_can_be_read(path: Path) -> None:
    with Store.open(path) as store:
        run_id = store.begin("bench", ENVIRONMENT)
        store.append(run_id, record())
        with Store.open(path, create=False) as reader:
            assert len(reader.run("latest").records) == 1


def damaged(path: Path) -> bytes:
    with Store.open(path) as store:
        run_id = store.begin("bench", ENVIRONMENT)
        for number in range(200):
            store.append(run_id, record(batch=number + 1))
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 9000] = b"\xa5" * 9000
    return bytes(content)


def truncated(path: Path) -> bytes:
    damaged(path)
    content = path.read_bytes()
    return content[: len(content) // 2 + 100]


def foreign(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.commit()
    connection.close()
    return path.read_bytes()


def newer(path: Path) -> bytes:
    Store.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {LAYOUT + 1}")
    connection.close()
    return path.read_bytes()


def text(path: Path) -> bytes:
    return b"fusion,latency\nadd,1\n" * 100


@pytest.mark.parametrize("make", [damaged, truncated, foreign, newer, text])
@pytest.mark.parametrize("create", [True, False])
def test_a_file_that_is_no_healthy_store_is_refused_with_a_hint_and_left_as_it_is(make, create, path: Path) -> None:
    content = make(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.iterdir():
        leftover.unlink()
    path.write_bytes(content)
    with pytest.raises(StoreError) as refusal:
        Store.open(path, create=create)
    assert str(path) in refusal.value.message
    assert refusal.value.hint
    assert path.read_bytes() == content


def test_a_store_whose_maker_was_killed_before_the_tables_is_empty_not_foreign(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(StoreError, match="holds no runs"):
        Store.open(path, create=False)
    with Store.open(path) as store:
        assert store.runs() == []


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder"):
        Store.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(tmp_path / "file" / "runs.sqlite")


def test_listing_runs_leaves_the_raw_samples_in_the_file(path: Path) -> None:
    with Store.open(path) as store:
        run_id = store.begin("bench", ENVIRONMENT)
        store.append(run_id, timed("aff", 1.0, samples_ms=(1.0, 2.0)))
        assert store.runs()[0].records[0].samples_ms == ()
        assert store.run(run_id).records[0].samples_ms == (1.0, 2.0)


def test_merging_stores_brings_every_run_over_once(tmp_path: Path) -> None:
    parts = []
    for number in range(2):
        parts.append(tmp_path / f"shard{number}.sqlite")
        with Store.open(parts[-1]) as store:
            run_id = store.begin(f"shard {number}", ENVIRONMENT, "add")
            store.append(run_id, record(batch=number + 1, samples_ms=(1.5,)))
            store.append_cell(run_id, {"identity": f"cell {number}"})
            store.finish(run_id)
    with Store.open(tmp_path / "all.sqlite") as merged:
        for part in (*parts, *parts):
            with Store.open(part, create=False) as store:
                merged.merge(store)
        assert [run.command for run in merged.runs()] == ["shard 0", "shard 1"]
        assert [run.finished for run in merged.runs()] == [True, True]
        assert [merged.run(run.id).records[0].samples_ms for run in merged.runs()] == [(1.5,), (1.5,)]
        assert [cell["identity"] for cell in merged.cells()] == ["cell 0", "cell 1"]


def test_merging_again_adds_what_a_run_has_gained_since(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.sqlite") as source, Store.open(tmp_path / "b.sqlite") as into:
        run_id = source.begin("bench", ENVIRONMENT)
        source.append(run_id, record(batch=1))
        assert (into.merge(source), into.merge(source)) == (1, 0)
        source.append(run_id, record(batch=2))
        source.finish(run_id)
        assert into.merge(source) == 1
        assert [r.batch for r in into.run().records] == [1, 2]
        assert into.run().finished


def test_a_field_of_a_later_version_is_left_out_when_read(path: Path) -> None:
    with Store.open(path) as store:
        run_id = store.begin("bench", ENVIRONMENT)
        store.append(run_id, record())
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "INSERT INTO records (run, record, samples_ms) "
            "SELECT run, json_set(record, '$.field_of_the_future', 1), samples_ms FROM records"
        )
    connection.close()
    with Store.open(path, create=False) as store:
        first, second = store.run().records
    assert dataclasses.asdict(first) == dataclasses.asdict(second)


def test_a_word_of_a_later_version_hides_no_row(path: Path) -> None:
    with Store.open(path) as store:
        run = store.begin("later", ENVIRONMENT)
        store.append(run, record())
        store.append(run, dataclasses.replace(record(), status="postponed"))  # type: ignore[arg-type]
    with Store.open(path, create=False) as store:
        assert [record.status for record in store.run("latest").records] == ["ok", "postponed"]
