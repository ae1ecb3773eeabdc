"""The run store: SQLite, append-only. A record is safe on disk the moment `append` returns.

One transaction a record, a write-ahead log and a busy timeout make it safe against a kill at any moment and against
several processes writing. Triggers refuse to change or delete what is stored. A file that is not ours, newer than
this version or damaged is refused and left as it is.

Layout history (`PRAGMA user_version`): 1, the first.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from afftool.errors import StoreError
from afftool.record import Environment, Record, Run

LAYOUT = 1
APPLICATION_ID = 0x61666674  # "afft", in the file's header
BUSY_TIMEOUT_S = 30.0

_TABLES = {
    "runs": "id INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE, started TEXT NOT NULL, "
    "command TEXT NOT NULL, environment TEXT NOT NULL, baseline TEXT",
    "records": "id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs(id), "
    "record TEXT NOT NULL, samples_ms TEXT NOT NULL",
    "cells": "id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs(id), cell TEXT NOT NULL",
    "finished": "run INTEGER PRIMARY KEY REFERENCES runs(id), at TEXT NOT NULL",
}


class Store:
    """The runs kept in one file. Use `Store.open`, or `Store.open(..., create=False)` to read what exists."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def open(cls, path: str | Path, *, create: bool = True) -> Store:
        """Open the store at `path`; with `create`, make it (and its folder) where there is none.

        Raises `StoreError` if there is nothing to read, or if the file is foreign, newer or damaged.
        """
        path = Path(path)
        if path.is_dir():
            raise StoreError(f"{path} is a folder, not a run store", hint=f"name a file, as {path / 'runs.sqlite'}")
        if not create and not path.exists():
            raise StoreError(
                f"there is no run store at {path}", hint="run `afftool bench` first, or name one by --store"
            )
        connection = None
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            connection = _connect(path, writable=create)
            if create:
                _create_tables(connection, path)
            else:
                _check(connection, path)
        except (sqlite3.Error, OSError, StoreError) as error:
            if connection is not None:
                connection.close()
            raise error if isinstance(error, StoreError) else _explain(error, path) from error
        return cls(path, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; whatever was appended is already on disk."""
        self._connection.close()

    def begin(self, command: str, environment: Environment, baseline: str | None = None) -> int:
        """Start a run and return its id."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        row = (uuid4().hex, started, command, json.dumps(environment.to_dict()), baseline)
        return self._insert(
            "INSERT INTO runs (uuid, started, command, environment, baseline) VALUES (?, ?, ?, ?, ?)", row
        )

    def append(self, run_id: int, record: Record) -> None:
        """Add a record to a run; when this returns, a kill cannot lose it."""
        fields = record.to_dict()
        samples = json.dumps(fields.pop("samples_ms"))
        sql = "INSERT INTO records (run, record, samples_ms) VALUES (?, ?, ?)"
        self._insert(sql, (run_id, json.dumps(fields), samples))

    def append_cell(self, run_id: int, cell: Mapping[str, Any]) -> None:
        """Add a trained cell of a study, as the JSON object that its record gives; as safe as `append`."""
        self._insert("INSERT INTO cells (run, cell) VALUES (?, ?)", (run_id, json.dumps(cell)))

    def cells(self, run_id: int | None = None) -> list[dict[str, Any]]:
        """The cells of one run, or of all runs, in the order they were added."""
        sql, values = ("WHERE run = ?", (run_id,)) if run_id is not None else ("", ())
        with _explained(self.path):
            rows = self._connection.execute(f"SELECT cell FROM cells {sql} ORDER BY id", values).fetchall()
            return [json.loads(row[0]) for row in rows]

    def merge(self, other: Store) -> int:
        """Copy what `other` holds and this store does not; returns how many runs were new or had grown.

        A run is known by an identifier given when it began, so merging twice adds nothing twice.
        """
        with _explained(self.path):
            return sum(self._merge_run(other, row) for row in other._run_rows())

    def finish(self, run_id: int) -> None:
        """Mark a run as complete; one that was interrupted never is."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._insert("INSERT INTO finished (run, at) VALUES (?, ?)", (run_id, at))

    def runs(self) -> list[Run]:
        """Every run with its records, oldest first; the records come without their raw samples."""
        return list(self._read("", samples=False))

    def run(self, which: int | str = "latest") -> Run:
        """One run: an id, `latest`, `latest~1` for the one before, or a negative number (-1 is the latest)."""
        return next(self._read("WHERE runs.id = ?", self.find(which)))

    def find(self, which: int | str = "latest") -> int:
        """The id that `which` stands for. Raises `StoreError` if there is no such run."""
        with _explained(self.path):
            ids = [row[0] for row in self._connection.execute("SELECT id FROM runs ORDER BY id")]
        if not ids:
            raise StoreError(f"{self.path} holds no runs yet", hint="run `afftool bench` first")
        back = re.fullmatch(r"latest(?:~(\d+))?", str(which))
        text = str(-1 - int(back[1] or 0)) if back else str(which)
        try:
            number = int(text)
        except ValueError:
            raise StoreError(
                f"{which!r} names no run",
                hint="a run is a number, `latest`, or `latest~1` for the one before; see `afftool runs`",
            ) from None
        if number < 0 and -number <= len(ids):
            return int(ids[number])
        if number not in ids:
            raise StoreError(
                f"there is no run {number} in {self.path}", hint=f"the latest is {ids[-1]}; see `afftool runs`"
            )
        return number

    def _insert(self, sql: str, values: tuple[Any, ...]) -> int:
        with _explained(self.path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            cursor = self._connection.execute(sql, values)
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _run_rows(self) -> list[tuple[Any, ...]]:
        with _explained(self.path):
            sql = "SELECT id, uuid, started, command, environment, baseline FROM runs ORDER BY id"
            return self._connection.execute(sql).fetchall()

    def _merge_run(self, other: Store, run: tuple[Any, ...]) -> bool:
        """One transaction: the run if it is new, then the rows it has there beyond those it has here."""
        theirs, uuid = run[0], run[1]
        with self._connection as mine:
            mine.execute("BEGIN IMMEDIATE")
            before = mine.total_changes
            columns = "uuid, started, command, environment, baseline"
            mine.execute(f"INSERT OR IGNORE INTO runs ({columns}) VALUES (?, ?, ?, ?, ?)", run[1:])
            ours = mine.execute("SELECT id FROM runs WHERE uuid = ?", (uuid,)).fetchone()[0]
            for table, columns in (("records", "record, samples_ms"), ("cells", "cell"), ("finished", "at")):
                held = mine.execute(f"SELECT count(*) FROM {table} WHERE run = ?", (ours,)).fetchone()[0]
                sql = f"SELECT {columns} FROM {table} WHERE run = ? ORDER BY rowid LIMIT -1 OFFSET ?"
                rows = other._connection.execute(sql, (theirs, held)).fetchall()
                marks = ", ".join("?" * (1 + columns.count(",") + 1))
                mine.executemany(
                    f"INSERT INTO {table} (run, {columns}) VALUES ({marks})", [(ours, *row) for row in rows]
                )
            return mine.total_changes > before

    def _read(self, where: str, *values: int, samples: bool = True) -> Iterator[Run]:
        with _explained(self.path):
            rows = self._connection.execute(
                "SELECT runs.id, started, command, environment, baseline, finished.run IS NOT NULL "
                f"FROM runs LEFT JOIN finished ON finished.run = runs.id {where} ORDER BY runs.id",
                values,
            ).fetchall()
            for run_id, started, command, environment, baseline, finished in rows:
                yield Run(
                    id=run_id,
                    command=command,
                    started=started,
                    environment=Environment.from_dict(json.loads(environment)),
                    baseline=baseline,
                    records=tuple(self._records(run_id, samples)),
                    finished=bool(finished),
                )

    def _records(self, run_id: int, samples: bool) -> Iterator[Record]:
        column = "samples_ms" if samples else "'[]'"
        sql = f"SELECT record, {column} FROM records WHERE run = ? ORDER BY id"
        for record, samples_ms in self._connection.execute(sql, (run_id,)).fetchall():
            yield Record.from_dict(json.loads(record) | {"samples_ms": json.loads(samples_ms)})


def _connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Transactions are begun by hand (`isolation_level=None`), so that nothing is open between two records."""
    uri = path.absolute().as_uri()

    def connect(mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{uri}?{mode}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)

    if writable:
        connection = connect("mode=rwc")
        connection.execute("PRAGMA synchronous = FULL")
        return connection
    connection = connect("mode=ro")
    try:
        connection.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError:
        # A write-ahead log needs a writable folder even to read; a store on read-only media has no writer to mind.
        connection.close()
        connection = connect("mode=ro&immutable=1")
    return connection


def _create_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Check the file, and lay out the tables if it is empty; of two processes doing so at once, one waits."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if _is_empty(connection):
            for table, columns in _TABLES.items():
                connection.execute(f"CREATE TABLE {table} ({columns})")
                for verb in ("UPDATE", "DELETE"):
                    connection.execute(
                        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                    )
            connection.execute("CREATE INDEX records_by_run ON records (run)")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {LAYOUT}")
    _check(connection, path)
    # Another process may be busy doing the same; the rollback journal that stays otherwise is as safe, only slower.
    with suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = WAL")


def _is_empty(connection: sqlite3.Connection) -> bool:
    """A file with nothing in it, such as one whose maker was killed before the tables were laid out."""
    objects: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return objects == 0 and _pragma(connection, "user_version") == 0 and _pragma(connection, "application_id") == 0


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if _is_empty(connection):
        raise StoreError(f"{path} holds no runs yet", hint="run `afftool bench` first")
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreError(f"{path} is a database, but not a run store of afftool", hint="name another file by --store")
    layout = _pragma(connection, "user_version")
    if layout > LAYOUT:
        raise StoreError(
            f"{path} was written by a newer afftool (layout {layout}, this one knows {LAYOUT})",
            hint="upgrade afftool, or name another file by --store",
        )
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise StoreError(f"{path} is damaged: {damage}", hint=_SALVAGE)


_SALVAGE = "move it away and start a new store; `sqlite3 FILE .recover` saves what can still be read"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, json.JSONDecodeError, TypeError) as error:
        raise _explain(error, path) from error


def _explain(error: Exception, path: Path) -> StoreError:
    text = str(error)
    if isinstance(error, sqlite3.OperationalError) and "locked" in text:
        return StoreError(f"{path} stayed locked by another process", hint="wait for it to end, then run this again")
    if isinstance(error, sqlite3.IntegrityError):
        return StoreError(f"{path} refused the change: {text}", hint="stored records are never changed")
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in text:
        return StoreError(f"{path} is not a run store: {text}", hint="name another file by --store")
    if isinstance(error, (OSError, sqlite3.OperationalError)):
        return StoreError(
            f"{path} cannot be opened or written: {text}", hint="check its folder, permissions and free space"
        )
    return StoreError(f"{path} is damaged: {text}", hint=_SALVAGE)
