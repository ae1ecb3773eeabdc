"""Specs in text: `name[:key=value]...` whatever the keys, sizes as `56x28`, lists. How they are read and written."""

from __future__ import annotations

import ast
import reprlib
from collections.abc import Collection, Container, Iterable, Sequence
from typing import Any, TypeVar

from afftool.errors import SpecError, UnknownKey
from afftool.registry import unknown

Number = TypeVar("Number", int, float)

LONGEST = 4000
"""Characters of a spec in text: Python reads no number of more than 4,300 digits."""


def name_and_options(text: str, kind: str, known: Container[str]) -> tuple[str, dict[str, str]]:
    """Name and options of `name[:key=value]...`; `pkg.mod:Class` is a name of its own."""
    if len(text) > LONGEST:
        raise SpecError(f"a text of {len(text)} characters is no {kind}", hint=f"name[:key=value]..., as {text[:40]!r}")
    name, *rest = (part.strip() for part in text.split(":"))
    if rest and rest[0] and "=" not in rest[0] and name not in known:
        name = f"{name}:{rest.pop(0)}"
    options = read_options(rest, text, kind)
    if not name.strip(":"):
        raise SpecError(f"empty {kind} name in {text!r}", hint=f"`afftool list` shows every {kind}")
    if ":" not in name and (name.endswith(".py") or "/" in name):
        file = name if name.endswith(".py") else f"{name}.py"
        raise SpecError(
            f"{name!r} names a file, and nothing in it",
            hint=f"name what makes the {kind}, as {file}:Name; a path holds no comma and no colon",
        )
    return name, options


def read_options(parts: Iterable[str], text: str, kind: str) -> dict[str, str]:
    """The options of a `text` from its `key=value` parts. Raises `SpecError`."""
    options: dict[str, str] = {}
    for part in parts:
        key, equals, value = (word.strip() for word in part.partition("="))
        if not (key and equals and value):
            hint = f"a {kind} is written name[:key=value]..."
            if ".py" in text:
                hint = f"a {kind} of a file is written path/file.py:Class[:key=value]..., and its path holds no colon"
            raise SpecError(f"{part!r} in {text!r} is not key=value", hint=hint)
        if key in options:
            raise SpecError(f"{key!r} is given twice in {text!r}", hint="keep one of them")
        options[key] = value
    return options


def write_text(name: str, options: Iterable[tuple[str, object]]) -> str:
    """`name[:key=value]...`, as `name_and_options` takes it apart."""
    return ":".join([name, *(f"{key}={show(value)}" for key, value in options)])


def unknown_key(name: str, key: str, known: Collection[str]) -> UnknownKey:
    """The error for a key that `name` does not take, with the nearest one that it does."""
    if not known:
        return UnknownKey(f"{name} takes no keys, and {key!r} was given", hint=f"leave it out: {name}")
    error = unknown("key", key, known)
    return UnknownKey(f"{name} takes no key {key!r}", hint=error.hint)


def read_number(key: str, value: str, kind: type[Number]) -> Number:
    """A number of this kind from its text. Raises `SpecError`."""
    try:
        return kind(value)
    except ValueError:
        raise SpecError(
            f"{key}={value} is not a {'whole ' if kind is int else ''}number", hint=f"for example {key}=4"
        ) from None


def read_setting(key: str, value: str, hint: Any) -> Any:
    """A setting of this type (whole number, number, truth value, else a word) from its text. Raises `SpecError`."""
    if hint is bool:
        if value not in ("true", "false"):
            raise SpecError(f"{key}={value} is neither true nor false", hint=f"for example {key}=true")
        return value == "true"
    return read_number(key, value, hint) if hint in (int, float) else value


def read_literal(text: str) -> Any:
    """The Python value that a text spells (4, 0.5, true, none, (1, 2)), where nobody knows the type; else the text."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for read in (int, float, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def show(value: object) -> str:
    """A value as it is written in the text form."""
    if isinstance(value, tuple):
        return "+".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def split_list(texts: Iterable[str] | None) -> list[str]:
    """Split options that may be given many times, or comma separated, or both: `["a,b", "c"]` -> a, b, c; or not.

    A comma within brackets belongs to a value: `fpn:Neck:widths=[64,128]` is one.
    """
    return [part.strip() for text in texts or () for part in _split(text) if part.strip()]


def _split(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth = max(0, depth + (letter in "([{") - (letter in ")]}"))
        if letter == "," and not depth:
            parts.append(text[start:place])
            start = place + 1
    return text.split(",") if depth else [*parts, text[start:]]  # a bracket that is never closed groups nothing


def parse_size(text: str, ndim: int) -> tuple[int, ...]:
    """Read `56` (every dimension) or `56x28` (one number a dimension), outermost first. Raises `SpecError`."""
    parts = text.lower().split("x")
    if not all(p.isdecimal() and len(p) < 10 for p in parts) or len(parts) not in (1, ndim):
        raise SpecError(
            f"size {reprlib.repr(text)} does not fit {ndim}-dimensional maps", hint="for example 56, or 56x28 in 2d"
        )
    numbers = tuple(int(p) for p in parts)
    return numbers * ndim if len(numbers) == 1 else numbers


def parse_stages(key: str, value: str) -> tuple[int, ...]:
    """Stages from `3`, `3-4`, `2+4` or `none`."""
    if value == "none":
        return ()
    stages: set[int] = set()
    for part in value.split("+"):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            raise SpecError(f"{key}={value} names no stages", hint="for example 3-4, 2+4, or none")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high:
            raise SpecError(f"{key}={value}: {part} is no range of stages", hint="stages count from 1, as 3-4")
        if high - low > 99:
            raise SpecError(f"{key}={value}: {part} is more stages than any host has", hint="for example 3-4")
        stages.update(range(low, high + 1))
    return tuple(sorted(stages))


def show_size(size: Sequence[int]) -> str:
    """One number a dimension: `56x28`."""
    return "x".join(map(str, size))


def name_extents(size: Sequence[int]) -> dict[str, int | None]:
    """A size under the names of the stored fields: the last extent is the width, None where there is no dimension."""
    depth, height, width = (None, None, None, *size)[-3:]
    return {"depth": depth, "height": height, "width": width}
