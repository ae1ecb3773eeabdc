"""What the system refuses to read becomes a `DataError` that names it; nothing that cannot be read is passed over."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

from afftool.errors import DataError

_PERMISSION = "check who may read it, and the folders above it"
_HINTS = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOENT: "restore it, or fetch the data again",
    errno.ELOOP: "put the file in the place of the link",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
}
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device"}


def unreadable(path: str | Path, error: OSError) -> DataError:
    """The error for a path that the system would not read; the hint is for its reason."""
    hint = _HINTS.get(error.errno or 0, "check the disk or the network it lies on, or fetch the data again")
    if error.errno != errno.ENOENT:
        return DataError(f"{path} cannot be read: {error.strerror or error}", hint=hint)
    link = os.path.islink(error.filename or path)
    return DataError(f"{path} is {'a link that leads nowhere' if link else 'missing'}", hint=hint)


def refused(error: BaseException) -> TypeGuard[OSError]:
    """Whether the system would not read; decoders raise `OSError` for broken content too, but without a number."""
    return isinstance(error, OSError) and error.errno is not None


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turn an `OSError` inside into a `DataError` about the file it names, or else about `path`."""
    try:
        yield
    except OSError as error:
        raise unreadable(error.filename or path, error) from error


def regular(path: Path, name: str = "") -> Path:
    """The path, if a plain file is there, links followed: opening a pipe would wait forever.

    Raises `DataError` about `name`, or the path.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreadable(name or path, error) from error
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no plain file")
        raise DataError(f"{name or path} is {kind}, not a file", hint="remove it, or put the file in its place")
    return path


def visible(folder: Path) -> list[Path]:
    """The entries of a folder without hidden ones, in no order."""
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def is_folder(path: Path) -> bool:
    """Whether an entry is a folder, links followed. Raises `DataError` for one that cannot be told, as a dead link."""
    with explained(path):
        return stat.S_ISDIR(path.stat().st_mode)


def entries_below(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """All entries under a folder that are `wanted`, in order, whatever they are; links to folders are not followed.

    Raises `DataError` for a folder that cannot be listed, where `Path.rglob` would leave its files out and say nothing.
    """

    def stop(error: OSError) -> None:
        raise unreadable(error.filename or folder, error) from error

    found: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=stop):
        found += [path for name in (*folders, *files) if wanted(path := Path(place, name))]
    return sorted(found)
