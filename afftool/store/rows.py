"""The rows of a store, read strictly: types, ranges, finite numbers, sizes, depth; a row of a stranger's costs no more.

One decoder for what is read and for what is merged. What it refuses is named (`Hidden`), never its neighbours. A field
that a newer afftool added is left out, and so is no row for a word that only a newer one knows: both are rows of ours.

What is written agrees with it: an error against eager that is infinite is stored as `Infinity`, and read as that; in
all other fields such a number is none of ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from afftool.errors import AfftoolError
from afftool.plain import from_plain
from afftool.received import Malformed, json_of
from afftool.record import Environment, Record

T = TypeVar("T")
Table = Literal["runs", "records", "cells", "finished"]

LARGEST_BYTES = 8 * 2**20
"""Of a row's JSON. A record has 4 KB, the plan of a study of 10,000 cells 600 KB."""
MOST_SAMPLES = 1_000_000
MOST = 2**63 - 1
"""No number of ours is larger: those that count are whole numbers of 64 bits, also in pandas."""
LONGEST_NAME = 10_000
"""Bytes of a name, such as a fusion's whole text; a table pads every row to the longest."""
LONGEST_COMMAND = 1_000_000
"""Bytes of a command line: no system takes more than a few."""
MOST_HIDDEN = 10_000
"""So many rows that cannot be read are named; who has more needs no longer list."""
MAY_BE_INFINITE = frozenset({"error_vs_eager", "rms_error_vs_eager", "instability_figures", "signal"})
"""Where infinities and not-a-numbers are findings: of a module whose outputs are none."""
UNBOUNDED = frozenset({"reason"})
"""Texts as long as a row may be: what an exception said."""


class Unreadable(ValueError):
    """What is wrong with a stored row, in words that follow what it is: "run 3: its start is no time"."""


@dataclass(frozen=True)
class Hidden:
    """A row that cannot be read and is left out: where it lies, whose it is, and why."""

    table: Table
    id: int
    run: int | None
    why: str

    def __str__(self) -> str:
        whose = f"run {self.run}" if self.run is not None else "no run"
        what = {
            "runs": f"run {self.id}",
            "records": f"record {self.id} of {whose}",
            "cells": f"study row {self.id} of {whose}",
            "finished": f"the end of {whose}",
        }[self.table]
        return f"{what}: {self.why}"


@dataclass(frozen=True)
class RunRow:
    """A row of `runs`, read: its columns, and what its environment says."""

    id: int
    uuid: str
    started: str
    command: str
    environment: Environment
    baseline: str | None
    finished: str | None = None
    """When it was complete; None if it never was."""


def run_of(row: tuple[Any, ...]) -> RunRow:
    """A row `id, uuid, started, command, environment, baseline`. Raises `Unreadable`."""
    number, uuid, started, command, environment, baseline = row
    if not 0 < number <= MOST:
        raise Unreadable("its number is not above 0")
    if not re.fullmatch("[0-9a-f]{32}", identifier := text_column(uuid, "its identifier", LONGEST_NAME)):
        raise Unreadable("its identifier is none of ours")
    return RunRow(
        id=number,
        uuid=identifier,
        started=time_of(started, "its start"),
        command=text_column(command, "its command", LONGEST_COMMAND),
        environment=flat(Environment).read(environment, "its environment"),
        baseline=None if baseline is None else text_column(baseline, "its baseline", LONGEST_NAME),
    )


def record_of(text: object, samples: object = None) -> Record:
    """A row of `records`, with its raw samples or without. Raises `Unreadable`."""
    record: Record = flat(Record).read(text, "it")
    times = () if samples is None else _times(samples)
    object.__setattr__(record, "samples_ms", times)  # nobody else has it yet; `replace` costs more than reading
    return record


def _times(samples: object) -> tuple[float, ...]:
    import msgspec

    text = text_column(samples, "its samples", 40 * MOST_SAMPLES)
    if text.count(",") >= MOST_SAMPLES:
        raise Unreadable(f"it has more than {MOST_SAMPLES:,} samples")
    try:
        times = msgspec.json.decode(text, type=tuple[float, ...])
    except (msgspec.MsgspecError, RecursionError):
        raise Unreadable("its samples are no list of numbers") from None
    if times and not 0 <= min(times) <= max(times) <= MOST:
        raise Unreadable("it has a sample that is no time")
    return times


def finished_at(value: object) -> str:
    """A row of `finished`. Raises `Unreadable`."""
    return time_of(value, "its time")


def time_of(value: object, what: str) -> str:
    """A moment as the store writes it. Raises `Unreadable`."""
    text = text_column(value, what, 40)
    try:
        aware = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        raise Unreadable(f"{what} is no time")
    return text


def text_column(value: object, what: str, longest: int) -> str:
    """A column that is text, as the file has it (`bytearray`; a blob is `bytes`). Raises `Unreadable`."""
    if not isinstance(value, bytearray):
        raise Unreadable(f"{what} is no text")
    if len(value) > longest:
        raise Unreadable(f"{what} is longer than {longest:,} bytes")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Unreadable(f"{what} is not UTF-8 text") from None


def fields_of(value: object, what: str = "it") -> dict[str, Any]:
    """A column that is a JSON object, whatever it holds, infinities too. Raises `Unreadable`."""
    try:
        fields = json_of(text_column(value, what, LARGEST_BYTES), nonfinite=True)
    except Malformed as error:
        raise Unreadable(f"{what} {error}") from None
    if not isinstance(fields, dict):
        raise Unreadable(f"{what} is no JSON object")
    cleaned: dict[str, Any] = _without_surrogates(fields)
    return cleaned


def checked_text(text: str, name: str) -> None:
    """Raise `Unreadable` for a name that is longer than any of ours."""
    if len(text) > LONGEST_NAME and name not in UNBOUNDED:
        raise Unreadable(f"its {name} is longer than {LONGEST_NAME:,} characters")


def checked_number(value: float, name: str, low: float = 0, high: float = MOST) -> None:
    """Raise `Unreadable` for a number that is out of its range, or none."""
    if not low <= value <= high and name not in MAY_BE_INFINITE:
        raise Unreadable(f"its {name} is {_brief(value)}, which is out of range")


class Flat(Generic[T]):
    """Reads a flat dataclass of numbers, texts, and lists and tables of them, each within its range."""

    def __init__(self, kind: type[T]) -> None:
        import msgspec  # when first needed: `--help` reads no store

        hints = get_type_hints(kind)
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind)
        self._failures = (msgspec.MsgspecError, ValueError, RecursionError, AfftoolError)
        self._words = [name for name, hint in hints.items() if _kinds(hint) & {Literal}]
        self._numbers = _Fields([name for name, hint in hints.items() if _kinds(hint) & {int, float}])
        self._texts = _Fields([name for name, hint in hints.items() if str in _kinds(hint)])
        self._several = _Fields([name for name, hint in hints.items() if _kinds(hint) & {dict, tuple}])

    def read(self, value: object, what: str) -> T:
        """The dataclass. Raises `Unreadable`; `what` says what is, as in "its environment is no text"."""
        text = text_column(value, what, LARGEST_BYTES)
        try:
            found = self._decoder.decode(text)
        except self._failures:
            found = self._read_slowly(fields_of(value, what))
        self._check(found)
        return found

    def _read_slowly(self, fields: dict[str, Any]) -> T:
        """What holds an infinity or a word of a newer afftool; and whatever is wrong, with its field."""
        later = {name: fields.pop(name) for name in self._words if _is_word(fields.get(name))}
        try:
            found = from_plain(self._kind, fields)
        except TypeError as error:
            raise Unreadable(str(error)) from None
        for name, word in later.items():
            object.__setattr__(found, name, word)
        return found

    def _check(self, found: T) -> None:
        for name, number in self._numbers.of(found):
            if number is not None and not 0 <= number <= MOST:
                checked_number(number, name)
        for name, text in self._texts.of(found):
            if text is not None and len(text) > LONGEST_NAME:
                checked_text(text, name)
        for name, several in self._several.of(found):
            if several:
                _check_several(several, name)


@cache
def flat(kind: type[Any]) -> Flat[Any]:
    """The reader of a dataclass, made once."""
    return Flat(kind)


class _Fields:
    """Some fields of a dataclass, taken all at once."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._get = attrgetter(*names, "__class__", "__class__")  # of two names or more it is a tuple, never a value

    def of(self, value: object) -> zip[tuple[str, Any]]:
        """Their names and values."""
        return zip(self._names, self._get(value), strict=False)


def _check_several(values: Mapping[str, Any] | tuple[Any, ...], name: str) -> None:
    """What a table calls its entries, and every number; a text in it may be as long as the row."""
    if isinstance(values, Mapping):
        for key in values:
            checked_text(key, name)
        values = tuple(value for value in values.values() if not isinstance(value, str))
    for item in values:
        if isinstance(item, str):
            checked_text(item, name)
        else:
            checked_number(item, name)


def _kinds(hint: Any) -> set[Any]:
    """What a field may be: `int | None` is {int, NoneType}, `dict[str, int] | None` {dict, NoneType}."""
    if get_origin(hint) in (Union, UnionType):
        return {kind for one in get_args(hint) for kind in _kinds(one)}
    return {get_origin(hint) or hint}


def _is_word(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[a-z][a-z0-9_ -]{0,39}", value) is not None


def _without_surrogates(value: Any) -> Any:
    """Half a character, which a file's name in another encoding leaves in a reason, can be written nowhere."""
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(inner) for inner in value]
    return storable(value) if isinstance(value, str) else value


def storable(text: str) -> str:
    """Text as UTF-8 can hold it."""
    return text.encode(errors="replace").decode()


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
