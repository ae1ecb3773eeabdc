"""Text files that others wrote: read only from a plain file and within a bound, decoded strictly.

What is wrong with one is a `Malformed`, in words; whoever reads it says which file it is, and what to do. Nothing that
a file holds costs more than reading it: not its size, not its depth, not its numbers.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

LARGEST_BYTES = 64 * 2**20
"""No file that a person or this tool writes to be read again comes near; a baseline of 10,000 cases has 5 MB."""
LARGEST_TOML = 2**20
"""Characters of settings that people write; Python's reader takes seconds for so many."""
WHOLE = 2**63
"""TOML's whole numbers have 64 bits: its own rule, which Python's reader does not keep."""
DEEPEST = 100
"""Nested lists and tables; what this tool writes has six."""

_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{DEEPEST}}}")
"""Of a key `a.b.c...` Python's reader keeps every beginning: 160 KB of them are 25 GB."""
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device"}


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
"""How what Git LFS leaves in the place of a file begins."""
_LONGEST_POINTER = 1024
"""Of bytes, by Git LFS's specification."""


class Malformed(ValueError):
    """What is wrong with the content of a file, in words that follow its name: "is a pipe, not a file"."""


def why(error: OSError | Malformed) -> str:
    """Why a file could not be read, in words that follow a colon: "it is a pipe, not a file", "Permission denied"."""
    return f"it {error}" if isinstance(error, Malformed) else str(error.strerror)


class _Lying(Malformed):
    """JSON that a lenient reader would take: a key twice, and numbers that are none."""


def no_plain_file(path: Path) -> str | None:
    """What lies at `path`, links followed, if it is anything but a file, whose opening may wait forever.

    Raises `OSError`.
    """
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no plain file")


def is_lfs_pointer(path: Path) -> bool:
    """Whether a plain file is a pointer of Git LFS, and its content is elsewhere. Raises `OSError`."""
    if not len(LFS_POINTER) < path.stat().st_size < _LONGEST_POINTER:
        return False
    with open(path, "rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def read_bytes(path: Path, *, at_most: int = LARGEST_BYTES) -> bytes:
    """A file's content. Raises `OSError`, or `Malformed` for what is no plain file or has more bytes than that."""
    if kind := no_plain_file(path):
        raise Malformed(f"is {kind}, not a file")
    with open(path, "rb", opener=_without_waiting) as file:
        data = file.read(at_most + 1)
    if len(data) > at_most:
        raise Malformed(f"is larger than {at_most / 2**20:,.4g} MiB")
    return data


def read_text(path: Path, *, at_most: int = LARGEST_BYTES) -> str:
    """A file's text in UTF-8, with the line ends of this system or not. Raises `OSError` or `Malformed`."""
    data = read_bytes(path, at_most=at_most)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"is not UTF-8 text (byte {error.start:,})") from error
    return text.replace("\r\n", "\n")


def json_of(text: str, *, largest: float = math.inf, nonfinite: bool = False) -> Any:
    """What JSON says: finite numbers up to `largest`, each key once, no deeper than `DEEPEST`. Raises `Malformed`.

    With `nonfinite` also `NaN` and `Infinity`, as Python writes them, for readers that know where they may stand.
    """

    def refuse_large(value: Any) -> None:
        if isinstance(value, (int, float)) and not -largest <= value <= largest:
            raise Malformed(f"holds a number beyond {largest:g}")

    numbers: dict[str, Any] = {} if nonfinite else {"parse_constant": _no_number, "parse_float": _finite}
    try:
        value = json.loads(text, object_pairs_hook=_each_once, **numbers)
    except _Lying as error:
        raise Malformed(f"{error}{_place(text)}") from error
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) - 1
        where = "ends in the middle" if cut else "is not JSON"
        raise Malformed(f"{where} (line {error.lineno}: {error.msg})") from error
    except RecursionError as error:
        raise Malformed("is nested too deep") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise Malformed("holds a number with too many digits") from error
    _check_depth(value, None if largest == math.inf else refuse_large)
    return value


def toml_of(text: str) -> dict[str, Any]:
    """What TOML says, no deeper than `DEEPEST` and its whole numbers of 64 bits. Raises `Malformed`."""
    if len(text) > LARGEST_TOML:
        raise Malformed(f"has more than {LARGEST_TOML:,} characters")
    if _LONG_KEY.search(text):
        raise Malformed(f"is nested too deep: a key of more than {DEEPEST} parts")
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"is not TOML: {error}") from error
    except RecursionError as error:
        raise Malformed("is nested too deep") from error
    except ValueError as error:
        raise Malformed("holds a number with too many digits") from error
    _check_depth(value, _refuse_large)
    return value


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that took the file's place in the meantime is opened at once, and is empty."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Lying(f"holds the key {_short(twice)!r} twice in one object")
    return found


def _no_number(word: str) -> NoReturn:
    raise _Lying(f"holds {word}, which is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Lying(f"holds {_short(digits)}, which is beyond every number there is")
    return value


def _short(key: str) -> str:
    return key if len(key) <= 100 else f"{key[:97]}..."


class _Members(list[tuple[str, Any]]):
    """A JSON object as it is written, with a key that comes twice in it twice."""


def _place(text: str) -> str:
    """Where the first number that is none stands, or the first key that comes twice: ` (cases: add: params)`."""
    try:
        levels: list[tuple[tuple[str, ...], Any]] = [((), json.loads(text, object_pairs_hook=_Members))]
    except (ValueError, RecursionError):  # wrong further down in other ways too
        return ""
    while levels:
        path, value = levels.pop()
        inner: list[tuple[tuple[str, ...], Any]] = []
        if isinstance(value, _Members):
            seen: set[str] = set()
            for key, member in value:
                inner.append(((*path, key), math.nan if key in seen else member))
                seen.add(key)
        elif isinstance(value, list):
            inner = [((*path, f"[{number}]"), item) for number, item in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            return f" ({': '.join(map(_short, path))})" if path else ""
        levels += reversed(inner)
    return ""


def _refuse_large(value: Any) -> None:
    if isinstance(value, int) and not -WHOLE <= value < WHOLE:
        raise Malformed("holds a whole number of more than 64 bits")


def _check_depth(value: Any, check: Callable[[Any], None] | None = None) -> None:
    """Refuse what is nested too deep, and what `check` refuses of all that is in it."""
    level = [value]
    for _ in range(DEEPEST):
        if check:
            for inner in level:
                check(inner)
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise Malformed("is nested too deep")
