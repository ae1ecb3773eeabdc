"""What a command was doing when its process ended without a word: a file beside the store, gone where it ends well.

A module of the user's own can end the process that runs it: by `os._exit`, by a signal, by taking all memory. Nobody
is left to say so then. The next command finds the file and does. Its lock, which no copy of a process inherits and the
system drops, tells one of a process that is still there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from afftool.received import Malformed, json_of, read_text

try:
    import fcntl
except ImportError:  # Windows: nothing is marked there
    fcntl = None  # type: ignore[assignment]

Tell = Callable[[str], None]

_SIZE = 2048
"""Always so many bytes, written at once: a process killed in between leaves the words before or those after."""
_LONGEST = 300


@dataclass(frozen=True)
class Left:
    """A command that ended in the middle: its run, None before it had one, and what it was doing."""

    path: Path
    run: int | None
    doing: str

    @property
    def text(self) -> str:
        """What there is to say about it."""
        what = f"run {self.run}" if self.run is not None else "an earlier command"
        stored = "; what was finished before is stored" if self.run is not None else ""
        return (
            f"{what} ended in the middle, while {self.doing}: its process was killed, as the system does where memory "
            f"runs out, or a module ended it (os._exit, a crash){stored}; --isolate process keeps a bench from that"
        )


class Mark:
    """The file of this process; `tell` says what it is doing."""

    def __init__(self, file: int | None) -> None:
        self._file = file
        self._run: int | None = None

    def begin(self, run: int) -> None:
        """It has a run from now on."""
        self._run = run

    def tell(self, doing: str) -> None:
        """What it is doing now; an empty text changes nothing."""
        if self._file is not None and doing:
            line = json.dumps({"run": self._run, "doing": doing[:_LONGEST]})
            with suppress(OSError):  # a full disk: there is nothing to say then
                os.pwrite(self._file, line.encode().ljust(_SIZE), 0)


@contextmanager
def marked(store: Path) -> Iterator[Mark]:
    """A mark beside the store while the block runs, however it ends but by the end of the process."""
    folder = store.parent
    made = not folder.exists()
    path = folder / f"{_prefix(store)}{os.getpid()}"
    file = _locked(path) if fcntl else None
    try:
        yield Mark(file)
    finally:
        if file is not None:
            with suppress(OSError):
                path.unlink()
            with suppress(OSError):
                os.close(file)
            if made:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()


def left_beside(store: Path) -> list[Left]:
    """The commands that ended in the middle beside this store, by what their files say; a stranger's file is none."""
    if not fcntl:
        return []
    own = f"{_prefix(store)}{os.getpid()}"
    found = (_read(path) for path in sorted(store.parent.glob(f"{escape(_prefix(store))}*")) if path.name != own)
    return [left for left in found if left is not None]


def _prefix(store: Path) -> str:
    return f"{store.name}.at-work-"


def _locked(path: Path) -> int | None:
    """The file, open and locked; None where the folder or the file system does not let it."""
    file = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.unlink()  # of a process that had this number before, or a link that was put there
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if file is not None:
            os.close(file)
            path.unlink(missing_ok=True)
        return None
    return file


def _read(path: Path) -> Left | None:
    try:
        if path.is_symlink():
            return None
        said = json_of(read_text(path, at_most=_SIZE))
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(file)
    except (OSError, Malformed):  # it is locked: whoever wrote it is at work
        return None
    run, doing = (said.get(name) for name in ("run", "doing")) if isinstance(said, dict) else (None, None)
    if not isinstance(doing, str) or isinstance(run, bool) or not isinstance(run, int | None):
        return None
    return Left(path, run, doing[:_LONGEST])
