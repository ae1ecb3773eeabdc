"""Files that code of the user's own opens while it is imported, built and tried, as Python's audit events tell them.

An event is told of every top-level module that is on the stack then: a module that is imported once in a process, or
keeps what it has read, answers for its files whoever needs it. Compiled code that opens a file by itself is not heard.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.util import source_from_cache
from pathlib import Path
from types import FrameType
from typing import Any

from afftool.imports import is_installed, is_own
from afftool.registry import top_level

_SYSTEM = tuple(map(Path, ("/proc", "/sys", "/dev", "/etc", "/run", "/usr/lib", "/usr/share")))
_BEYOND = {
    "socket.connect": "what it asked of the network",
    "socket.getaddrinfo": "what it asked of the network",
    "subprocess.Popen": "the programs it started",
    "os.system": "the programs it started",
}


@dataclass
class Heard:
    """What one top-level module did: files it read, files it wrote, and what no file tells."""

    read: set[Path] = field(default_factory=set)
    written: set[Path] = field(default_factory=set)
    beyond: set[str] = field(default_factory=set)


_heard: defaultdict[str, Heard] = defaultdict(Heard)
_watched: list[Collection[str]] = []
_busy = threading.local()


def heard(module: str) -> Heard:
    """What has been heard of a top-level module in this process."""
    return _heard[module]


@contextmanager
def watched(targets: Collection[str] = ()) -> Iterator[None]:
    """Hear what the user's own modules open in the block; those of `targets` also where they are installed."""
    _install()
    _watched.append(frozenset(map(top_level, targets)))
    try:
        yield
    finally:
        _watched.pop()


def is_data(path: Path) -> bool:
    """Whether a file that was read can be the user's: of no system, environment or cache of compiled code."""
    in_environment = sys.prefix != sys.base_prefix and path.is_relative_to(sys.prefix)
    cached = any(part == "__pycache__" or part.startswith(("torchinductor", "torch_extensions")) for part in path.parts)
    return is_own(path) and not in_environment and not cached and not any(map(path.is_relative_to, _SYSTEM))


@cache
def _install() -> None:
    """Once: a hook cannot be taken away again, and hears nothing outside `watched`."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched or (event != "open" and event not in _BEYOND) or getattr(_busy, "now", False):
        return
    _busy.now = True
    try:
        with contextlib.suppress(Exception):  # what a hook raises would end the user's own call
            _note(event, arguments, sys._getframe(1))
    finally:
        _busy.now = False


def _note(event: str, arguments: tuple[Any, ...], frame: FrameType) -> None:
    modules = _modules(frame)
    if not modules:
        return
    if event in _BEYOND:
        for module in modules:
            _heard[module].beyond.add(_BEYOND[event])
        return
    given, mode, flags = arguments
    if not isinstance(given, str | bytes | os.PathLike):  # an open file's number
        return
    path = Path(os.fsdecode(given)).absolute()
    if path.suffix == ".pyc":
        path = Path(source_from_cache(str(path)))
    made = os.O_WRONLY | os.O_TRUNC | os.O_APPEND
    writes = bool(set(mode) & set("wxa")) if mode else bool(flags & made)
    for module in modules:
        (_heard[module].written if writes else _heard[module].read).add(path)


def _modules(frame: FrameType | None) -> set[str]:
    """The user's own top-level modules that an event happened in; none in the import of what is installed."""
    found = set()
    while frame is not None:
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if any(name in names for names in _watched) or _is_own_code(frame.f_code.co_filename):
            found.add(name)
        elif frame.f_code.co_name == "<module>" and is_installed(Path(frame.f_code.co_filename)):
            break
        frame = frame.f_back
    return found


@cache
def _is_own_code(filename: str) -> bool:
    return not filename.startswith("<") and is_own(Path(filename).absolute())
