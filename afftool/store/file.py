"""The file of a store: what may be opened as one, how it is laid out, and how long reading it may take.

A store may come from anybody. SQLite trusts what lies beside a database (a journal can name any file to be deleted) and
runs what is laid out in it (views, triggers), so both are looked at before anything is read: a store has the tables,
index and triggers of its layout and nothing else.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from afftool.errors import StoreError
from afftool.received import no_plain_file

LAYOUT = 1
APPLICATION_ID = 0x61666674  # "afft", in the file's header
BUSY_TIMEOUT_S = 30.0
MOST_ROWS = 1_000_000
"""Of one table. A store of 100,000 records has 300 MB."""
LAST_NUMBER = 2**62
"""A row of a store that is added to is numbered below it; nobody counts so far."""
LARGEST_BYTES = 16 * 2**30
"""A file with holes may say any size, and looking for damage takes memory by the page."""
READ_AT_MOST_S = 300.0
"""A single question to SQLite; a healthy store of 100,000 records answers each within a second."""

_TABLES = {
    "runs": "id INTEGER PRIMARY KEY AUTOINCREMENT, uuid TEXT NOT NULL UNIQUE, started TEXT NOT NULL, "
    "command TEXT NOT NULL, environment TEXT NOT NULL, baseline TEXT",
    "records": "id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs(id), "
    "record TEXT NOT NULL, samples_ms TEXT NOT NULL",
    "cells": "id INTEGER PRIMARY KEY AUTOINCREMENT, run INTEGER NOT NULL REFERENCES runs(id), cell TEXT NOT NULL",
    "finished": "run INTEGER PRIMARY KEY REFERENCES runs(id), at TEXT NOT NULL",
}
TABLES = tuple(_TABLES)

NO_DELETE = {
    table: f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    for table in _TABLES
}
_NO_UPDATE = {
    table: trigger.replace("delete", "update").replace("DELETE", "UPDATE") for table, trigger in NO_DELETE.items()
}
_INDEX = "CREATE INDEX records_by_run ON records (run)"
_OBJECTS = {
    **{("table", table, table): f"CREATE TABLE {table} ({columns})" for table, columns in _TABLES.items()},
    **{("trigger", f"{table}_no_update", table): sql for table, sql in _NO_UPDATE.items()},
    **{("trigger", f"{table}_no_delete", table): sql for table, sql in NO_DELETE.items()},
    ("index", "records_by_run", "records"): _INDEX,
}
_OF_SQLITE = {
    ("table", "sqlite_sequence", "sqlite_sequence"): "CREATE TABLE sqlite_sequence(name,seq)",
    ("index", "sqlite_autoindex_runs_1", "runs"): None,
}
"""What SQLite itself adds for AUTOINCREMENT and UNIQUE."""
_BESIDE = ("-wal", "-shm", "-journal")
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_SALVAGE = "move it away and start a new store; `sqlite3 FILE .recover` saves what can still be read"
_ANOTHER = "name another file by --store"


class Clock:
    """Ends a question to SQLite that takes too long."""

    def __init__(self) -> None:
        self.until = time.monotonic() + READ_AT_MOST_S

    def restart(self) -> None:
        """Another question begins."""
        self.until = time.monotonic() + READ_AT_MOST_S

    def is_over(self) -> bool:
        """Whether SQLite should stop."""
        return time.monotonic() > self.until


def open_file(path: Path, *, create: bool) -> tuple[sqlite3.Connection, Clock]:
    """The database at `path`, checked; with `create` it may be written, and is laid out where there is none.

    Raises `StoreError`, `OSError` or `sqlite3.Error`. Transactions are begun by hand (`isolation_level=None`), so that
    nothing is open between two records. Text comes as `bytearray`, blobs as `bytes`.
    """
    _refuse_what_is_no_file(path, create)
    clock = Clock()
    connection = _connect(path, "mode=rwc", clock) if create else _connect_to_read(path, clock)
    try:
        if create:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")  # a run may be pruned while another process adds to it
            _create_tables(connection, path)
        else:
            connection.execute("PRAGMA query_only = ON")
            _check(connection, path)
        connection.text_factory = bytearray
    except BaseException:
        connection.close()
        raise
    return connection, clock


def _refuse_what_is_no_file(path: Path, create: bool) -> None:
    """Whatever is no plain file, here or beside it: opening a pipe waits forever, and a link leads anywhere."""
    if path.is_dir():
        raise StoreError(f"{path} is a folder, not a run store", hint=f"name a file, as {path / 'runs.sqlite'}")
    if not path.exists():
        if path.is_symlink():
            raise StoreError(f"{path} is a link to nothing, not a run store", hint=f"remove it, or {_ANOTHER}")
        if not create:
            raise StoreError(
                f"there is no run store at {path}", hint="run `afftool bench` first, or name one by --store"
            )
    elif kind := no_plain_file(path):
        raise StoreError(f"{path} is {kind}, not a run store", hint=_ANOTHER)
    whole = path.resolve()  # as SQLite does: what belongs to a database lies beside it, not beside a link to it
    for suffix in _BESIDE:
        beside = whole.with_name(whole.name + suffix)
        try:
            mode = beside.lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            raise StoreError(f"{beside}, which SQLite keeps beside a store, is no plain file", hint="remove it")
    _refuse_foreign_journal(whole.with_name(f"{whole.name}-journal"))


def _refuse_foreign_journal(journal: Path) -> None:
    """A journal can name another file, which SQLite deletes once it has put the database right. None of ours does."""
    try:
        with journal.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - len(_JOURNAL_MAGIC)))
            end = file.read()
    except FileNotFoundError:  # most have none, and one who is writing removes his at every record
        return
    if end == _JOURNAL_MAGIC:
        raise StoreError(
            f"{journal} is of no store of ours: it would have another file deleted",
            hint="remove it; the store beside it may be damaged",
        )


def _connect(path: Path, mode: str, clock: Clock) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.text_factory = lambda data: data.decode(errors="replace")
    connection.set_progress_handler(clock.is_over, 100_000)
    # What is laid out in the file may call no function that does anything, and pages are checked before they are used.
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _connect_to_read(path: Path, clock: Clock) -> sqlite3.Connection:
    """Reads a store and changes nothing, but where another process died in the middle of a change.

    A write-ahead log needs a writable folder even to be read. On media where nothing can be written nobody writes
    meanwhile, so there the file alone is read, if no log beside it holds any more.
    """
    whole = path.resolve()
    log = whole.with_name(f"{whole.name}-wal")
    # Who may not write leaves an empty log behind; a log that is there is left as it is, its writer may be alive.
    connection = _connect(path, "mode=ro" if log.exists() else "mode=rw", clock)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError as error:
        connection.close()
        code = error.sqlite_errorcode & 0xFF
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
        if _can_be_written(whole.parent):
            if code == sqlite3.SQLITE_CANTOPEN:
                raise
            return _connect(path, "mode=rw", clock)
        for beside in (log, whole.with_name(f"{whole.name}-journal")):
            if beside.exists() and beside.stat().st_size:
                raise StoreError(
                    f"{path} cannot be read here: a part of it is in {beside.name}, and that is read only where "
                    "something can be written beside it",
                    hint=f"copy both to a folder of your own, {path.name} and {beside.name}",
                ) from error
        return _connect(path, "mode=ro&immutable=1", clock)


def _can_be_written(folder: Path) -> bool:
    """Whether anything can be, by permission (of whoever this process acts for) and on that medium."""
    effective = os.access in os.supports_effective_ids
    return os.access(folder, os.W_OK) and os.access(folder, os.W_OK, effective_ids=effective)


def _create_tables(connection: sqlite3.Connection, path: Path) -> None:
    """Check the file, and lay out the tables if it is empty; of two processes doing so at once, one waits."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if _is_empty(connection):
            for sql in _OBJECTS.values():
                connection.execute(sql)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {LAYOUT}")
    _check(connection, path)
    _check_numbers_left(connection, path)
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
        raise StoreError(f"{path} is a database, but not a run store of afftool", hint=_ANOTHER)
    layout = _pragma(connection, "user_version")
    if layout > LAYOUT:
        raise StoreError(
            f"{path} was written by a newer afftool (layout {layout}, this one knows {LAYOUT})",
            hint=f"upgrade afftool, or {_ANOTHER}",
        )
    if layout < LAYOUT:
        raise StoreError(f"{path} says layout {layout}, which no afftool has written", hint=_ANOTHER)
    _check_objects(connection, path)
    size = _pragma(connection, "page_count") * _pragma(connection, "page_size")
    if size > LARGEST_BYTES:
        raise StoreError(f"{path} has {size / 2**30:,.0f} GiB, which no store has", hint=_ANOTHER)
    # Not the quick one: an index that lacks rows, or has them under another run, would hide them without a word.
    damage = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if damage != "ok":
        raise StoreError(f"{path} is damaged: {damage}", hint=_SALVAGE)
    for table in TABLES:
        count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        if count > MOST_ROWS:
            raise StoreError(
                f"{path} has {count:,} rows of {table}, more than {MOST_ROWS:,}, which is what one store may hold",
                hint="keep runs in several stores; `afftool compare FILE:RUN FILE:RUN` reads across them",
            )


def _check_numbers_left(connection: sqlite3.Connection, path: Path) -> None:
    """SQLite gives no number again, and calls the disk full where the last one was given."""
    for table in ("runs", "records", "cells"):
        sql = "SELECT max(ifnull(max(id), 0), ifnull((SELECT max(seq) FROM sqlite_sequence WHERE name = ?), 0))"
        last = connection.execute(f"{sql} FROM {table}", (table,)).fetchone()[0]
        if isinstance(last, int) and last > LAST_NUMBER:
            raise StoreError(
                f"{path} has no numbers left for {table}: the last was {last}",
                hint=f"{_ANOTHER}; `afftool runs merge {path} --store ANOTHER` copies its runs",
            )


def _check_objects(connection: sqlite3.Connection, path: Path) -> None:
    """Nothing but what `_create_tables` lays out: a view can be endless, and a trigger can write what nobody asked."""
    expected = {**_OBJECTS, **_OF_SQLITE}
    sql = "SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 100"
    found = {(kind, name, table): text for kind, name, table, text in connection.execute(sql)}
    odd = [key for key in found if key not in expected or found[key] != expected[key]]
    if odd or len(found) < len(expected):
        what = f"its {odd[0][0]} {str(odd[0][1])[:40]!r} is none of ours" if odd else "it lacks a part"
        raise StoreError(
            f"{path} is not laid out as a run store: {what}",
            hint=f"{_ANOTHER}; whoever made this one did not use afftool alone",
        )


def file_identity(path: Path) -> tuple[int, int] | None:
    """Which file lies at `path` now; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def explained(path: Path, clock: Clock | None = None) -> Iterator[None]:
    """Errors of SQLite and of the system, as `StoreError`."""
    if clock is not None:
        clock.restart()
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise explain(error, path) from error


def explain(error: Exception, path: Path) -> StoreError:
    """What an error of SQLite or of the system means for whoever asked."""
    text = str(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(f"{path} stayed locked by another process", hint="wait for it to end, then run this again")
    if code == sqlite3.SQLITE_INTERRUPT:
        return StoreError(f"reading {path} took longer than {READ_AT_MOST_S:.0f} s and was ended", hint=_SALVAGE)
    if isinstance(error, sqlite3.IntegrityError) and "FOREIGN KEY" in text:
        return StoreError(f"the run is no longer in {path}", hint="was it pruned meanwhile? Run this again")
    if isinstance(error, sqlite3.IntegrityError):
        return StoreError(f"{path} refused the change: {text}", hint="stored records are never changed")
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{path} is not a run store: {text}", hint=_ANOTHER)
    if code == sqlite3.SQLITE_IOERR:  # among others where a network mount only pretends to lock
        return StoreError(
            f"{path} cannot be read or written: {text} ({getattr(error, 'sqlite_errorname', '')})",
            hint="check its disk and free space; on a network mount one process at a time may write a store",
        )
    if isinstance(error, (OSError, sqlite3.OperationalError)):
        return StoreError(
            f"{path} cannot be opened or written: {text}", hint="check its folder, permissions and free space"
        )
    return StoreError(f"{path} is damaged: {text}", hint=_SALVAGE)
