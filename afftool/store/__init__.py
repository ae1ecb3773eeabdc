"""The run store: SQLite, append-only. A record is safe on disk the moment `append` returns.

One transaction a record, a write-ahead log and a busy timeout make it safe against a kill at any moment and against
several processes writing. Triggers refuse to change or delete what is stored; `prune` alone removes whole runs. A file
that is not ours, newer than this version or damaged is refused and left as it is (`file`). Rows are read strictly
(`rows`): one that cannot be read is named in `hidden` and left out, as if it was not there.

Layout history (`PRAGMA user_version`): 1, the first.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import uuid4

from afftool.errors import StoreError
from afftool.record import Environment, Record, Run
from afftool.store.file import LAYOUT, NO_DELETE, TABLES, Clock, explained, file_identity, open_file
from afftool.store.rows import (
    LONGEST_COMMAND,
    MOST_HIDDEN,
    Hidden,
    RunRow,
    Table,
    Unreadable,
    fields_of,
    finished_at,
    record_of,
    run_of,
    storable,
)

T = TypeVar("T")

_RUN_COLUMNS = "uuid, started, command, environment, baseline"
_COLUMNS: dict[Table, str] = {"records": "record, samples_ms", "cells": "cell", "finished": "at"}
"""Of the tables whose rows belong to a run."""
_RUNS = "a run is a number, `latest`, or `latest~1` for the one before; see `afftool runs`"


class Store:
    """The runs kept in one file. Use `Store.open`, or `Store.open(..., create=False)` to read what exists.

    `hidden` are the rows that were to be read by now and could not be, each once, and the first `MOST_HIDDEN` only.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, clock: Clock) -> None:
        self.path = path
        self._connection = connection
        self._clock = clock
        self._file = file_identity(path)
        self._hidden: dict[tuple[str, int], Hidden] = {}
        self._known: dict[int, tuple[tuple[Any, ...], RunRow]] = {}

    @classmethod
    def open(cls, path: str | Path, *, create: bool = True) -> Store:
        """Open the store at `path`; with `create`, make it (and its folder) where there is none.

        Raises `StoreError` if there is nothing to read, or if the file is foreign, newer or damaged.
        """
        path = Path(path)
        with explained(path):
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            return cls(path, *open_file(path, create=create))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; whatever was appended is already on disk."""
        self._connection.close()

    @property
    def hidden(self) -> list[Hidden]:
        """The rows that could not be read, of what was asked so far."""
        return list(self._hidden.values())

    def begin(self, command: str, environment: Environment, baseline: str | None = None) -> int:
        """Start a run and return its id."""
        row = (uuid4().hex, _now(), storable(command)[:LONGEST_COMMAND], json.dumps(environment.to_dict()), baseline)
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
        return [fields for _, fields in self.read_cells(fields_of, run_id)]

    def read_cells(self, read: Callable[[object], T], run_id: int | None = None) -> list[tuple[int, T]]:
        """The cells of one run, or of all, in the order they were added: each with its run, and as `read` makes it.

        `read` raises `Unreadable` for what is none.
        """
        runs = self._runs()
        return [(run, cell) for run, _, cell in self._read("cells", "cell", read, run_id) if run in runs]

    def read_all(self, read: Callable[[object], T]) -> list[tuple[int, T]]:
        """The cells as `read_cells` has them, once every other row was read too, so that `hidden` lacks none."""
        self._find_orphans()
        for _ in self._read("records", "record, samples_ms", record_of):
            pass
        return self.read_cells(read)

    def finish(self, run_id: int) -> None:
        """Mark a run as complete; one that was interrupted never is."""
        self._insert("INSERT INTO finished (run, at) VALUES (?, ?)", (run_id, _now()))

    def runs(self) -> list[Run]:
        """Every run with its records, oldest first; the records come without their raw samples."""
        self._find_orphans()
        records: dict[int, list[Record]] = {}
        for run, _, record in self._read("records", "record", record_of):
            records.setdefault(run, []).append(record)
        return [_run(row, records.get(number, ())) for number, row in self._runs().items()]

    def run(self, which: int | str = "latest") -> Run:
        """One run: an id, `latest`, `latest~1` for the one before, or a negative number (-1 is the latest)."""
        number = self.find(which)
        found = self._read("records", "record, samples_ms", record_of, number)
        return _run(self._runs()[number], [record for _, _, record in found])

    def find(self, which: int | str = "latest") -> int:
        """The id that `which` stands for. Raises `StoreError` if there is no such run, or if it cannot be read."""
        ids = list(self._runs())
        number = _number(which, ids)
        if number in ids:
            return number
        if hidden := self._hidden.get(("runs", number)):
            raise StoreError(f"{self.path}: {hidden}", hint=f"`afftool runs prune {number}` removes it")
        if not ids:
            raise StoreError(f"{self.path} holds no runs yet", hint="run `afftool bench` first")
        if number < 0:
            raise StoreError(f"{which!r} names no run", hint=_RUNS)
        raise StoreError(
            f"there is no run {number} in {self.path}", hint=f"the latest is {ids[-1]}; see `afftool runs`"
        )

    def named(self, which: Iterable[int | str]) -> set[int]:
        """The ids that words stand for, those of runs that cannot be read too. Raises `StoreError`."""
        ids = list(self._runs())
        found = set()
        for word in which:
            number = _number(word, ids)
            unread = {row.run for row in self.hidden}
            found.add(number if number in unread else self.find(word))
        return found

    def merge(self, other: Store, read_cell: Callable[[object], object] = fields_of) -> int:
        """Copy what `other` holds and this store does not; returns how many runs were new or had grown.

        A run is known by an identifier given when it began, so merging twice adds nothing twice. What cannot be read,
        and a run that is another one here, is left out: `other.hidden` names it then. `read_cell` raises `Unreadable`
        for what is no study's row.
        """
        other._find_orphans()
        cells: dict[int, list[tuple[Any, ...]]] = {}
        for run, raw, _ in other._read("cells", "cell", read_cell):
            cells.setdefault(run, []).append(raw)
        grown = 0
        for number, (raw, row) in other._run_rows().items():
            records = [raw for _, raw, _ in other._read("records", "record, samples_ms", record_of, number)]
            finished = [] if row.finished is None else [(bytearray(row.finished, "utf-8"),)]
            rows = {"records": records, "cells": cells.get(number, []), "finished": finished}
            try:
                with explained(self.path, self._clock):
                    grown += self._merge_run(raw[1:], rows)
            except Unreadable as error:
                other._hide("runs", number, number, str(error))
        return grown

    def _merge_run(self, run: tuple[Any, ...], rows: Mapping[str, list[tuple[Any, ...]]]) -> bool:
        """One transaction: the run if it is new, then the rows it has there beyond those it has here.

        Raises `Unreadable` if it is not the run that has this identifier here, or an earlier state of it.
        """
        with self._connection as mine:
            mine.execute("BEGIN IMMEDIATE")
            before = mine.total_changes
            held = mine.execute(f"SELECT id, {_RUN_COLUMNS} FROM runs WHERE uuid = ?", (run[0].decode(),)).fetchone()
            if held is None:
                marks = ", ".join("?" * len(run))
                sql = f"INSERT INTO runs ({_RUN_COLUMNS}) VALUES ({marks})"
                ours = mine.execute(sql, [_text(value) for value in run]).lastrowid
            elif held[1:] != run:
                raise Unreadable(f"it has the identifier of run {held[0]} of {self.path}, and is another run")
            else:
                ours = held[0]
            complete = mine.execute("SELECT count(*) FROM finished WHERE run = ?", (ours,)).fetchone()[0]
            for table, columns in _COLUMNS.items():
                sql = f"SELECT {columns} FROM {table} WHERE run = ? ORDER BY rowid"
                here, there = mine.execute(sql, (ours,)).fetchall(), rows[table]
                # What was complete does not grow: whoever says so adds to a run that is not his.
                if here[: len(there)] != there[: len(here)] or (complete and len(there) > len(here)):
                    raise Unreadable(f"its {table} are not those of run {ours} of {self.path}, whose identifier it has")
                marks = ", ".join("?" * (2 + columns.count(",")))
                mine.executemany(
                    f"INSERT INTO {table} (run, {columns}) VALUES ({marks})",
                    [(ours, *map(_text, row)) for row in there[len(here) :]],
                )
            return mine.total_changes > before

    def prune(self, runs: Collection[int], rows: Iterable[Hidden] = ()) -> dict[str, int]:
        """Remove runs with all their rows for good, and single rows; returns how many rows went, by table.

        All of it or nothing: one transaction, in which what forbids deletion is set aside. An id is never given again.
        """
        gone = {"runs": [(number,) for number in runs], "records": [], "cells": [], "finished": []}
        for row in rows:
            gone[row.table].append((row.id,))
        with explained(self.path, self._clock), self._connection as mine:
            mine.execute("PRAGMA secure_delete = ON")  # what is removed is overwritten, not only forgotten
            mine.execute("BEGIN IMMEDIATE")
            for table in TABLES:
                mine.execute(f"DROP TRIGGER {table}_no_delete")
            count: dict[str, int] = {table: self._delete(table, "run", gone["runs"]) for table in _COLUMNS}
            for table in (*_COLUMNS, "runs"):  # what refers to a run goes before it
                count[table] = count.get(table, 0) + self._delete(table, "rowid", gone[table])
            for trigger in NO_DELETE.values():
                mine.execute(trigger)
        self._hidden.clear()
        return count

    def _delete(self, table: str, key: str, values: list[tuple[int]]) -> int:
        return self._connection.executemany(f"DELETE FROM {table} WHERE {key} = ?", values).rowcount if values else 0

    def _insert(self, sql: str, values: tuple[Any, ...]) -> int:
        with explained(self.path, self._clock), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            cursor = self._connection.execute(sql, values)
        if file_identity(self.path) != self._file:
            raise StoreError(
                f"{self.path} was removed or replaced while it was open: what this command stored is in no file there",
                hint="run it again",
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _read(
        self, table: Table, columns: str, read: Callable[..., T], run: int | None = None
    ) -> Iterator[tuple[int, tuple[Any, ...], T]]:
        """The rows of a table that can be read, in order: each one's run, its columns as they are, what they say."""
        where, values = ("WHERE run = ?", (run,)) if run is not None else ("", ())
        with explained(self.path, self._clock):
            sql = f"SELECT rowid, run, {columns} FROM {table} {where} ORDER BY rowid"
            for number, whose, *raw in self._connection.execute(sql, values):
                try:
                    value = read(*raw)
                except Unreadable as error:
                    self._hide(table, number, whose, str(error))
                else:
                    yield whose, tuple(raw), value

    def _run_rows(self) -> dict[int, tuple[tuple[Any, ...], RunRow]]:
        """The rows of `runs` that can be read, by id: as they are, and what they say."""
        finished = {run: at for run, _, at in self._read("finished", "at", finished_at)}
        known = {}
        with explained(self.path, self._clock):
            for raw in self._connection.execute(f"SELECT id, {_RUN_COLUMNS} FROM runs ORDER BY id"):
                number = raw[0]
                try:
                    before = self._known.get(number)
                    known[number] = before if before and before[0] == raw else (raw, run_of(raw))
                except Unreadable as error:
                    self._hide("runs", number, number, str(error))
        self._known = known
        return {number: (raw, replace(row, finished=finished.get(number))) for number, (raw, row) in known.items()}

    def _runs(self) -> dict[int, RunRow]:
        return {number: row for number, (_, row) in self._run_rows().items()}

    def _find_orphans(self) -> None:
        """Name the rows that belong to no run."""
        with explained(self.path, self._clock):
            for table in _COLUMNS:
                sql = f"SELECT rowid, run FROM {table} WHERE run NOT IN (SELECT id FROM runs)"
                for number, whose in self._connection.execute(sql):
                    self._hide(table, number, whose, "there is no such run")

    def _hide(self, table: Table, number: int, run: object, why: str) -> None:
        if len(self._hidden) >= MOST_HIDDEN:
            return  # left out all the same; a small file may hold very many
        whose, brief = run if isinstance(run, int) else None, why if len(why) <= 300 else f"{why[:297]}..."
        self._hidden.setdefault((table, number), Hidden(table, number, whose, brief))


def _run(row: RunRow, records: Iterable[Record]) -> Run:
    return Run(
        id=row.id,
        command=row.command,
        started=row.started,
        environment=row.environment,
        baseline=row.baseline,
        records=tuple(records),
        finished=row.finished is not None,
    )


def _number(which: int | str, ids: Sequence[int]) -> int:
    """The id that a word stands for, if there is such a run. Raises `StoreError` for what is no word for a run."""
    back = re.fullmatch(r"latest(?:~(\d{1,18}))?", str(which))
    text = str(-1 - int(back[1] or 0)) if back else str(which)
    try:
        number = int(text)
    except ValueError:
        raise StoreError(f"{which!r} names no run", hint=_RUNS) from None
    return ids[number] if number < 0 and -number <= len(ids) else number


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _text(value: bytearray | None) -> str | None:
    return None if value is None else value.decode()


__all__ = ["LAYOUT", "MOST_HIDDEN", "Hidden", "Store", "Unreadable"]
