"""What the system refuses to read becomes a `DataError` that names it; nothing that cannot be read is passed over.

What does not fit into memory is refused here too, before it is taken.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR
from typing import TypeGuard

from afftool import environment, units
from afftool.errors import DataError
from afftool.received import is_lfs_pointer, no_plain_file

MOST_ENTRIES = 5_000_000
"""Files and folders below one: four times ImageNet's. A link to the root of a disk would be walked for hours."""

_PERMISSION = "check who may read it, and the folders above it"
_HINTS = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOENT: "restore it, or fetch the data again",
    errno.ELOOP: "put the file in the place of the link",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
}


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

    Raises `DataError` about `name`, or the path; also for what Git LFS left in the place of a file.
    """
    try:
        kind = no_plain_file(path)
        pointer = kind is None and is_lfs_pointer(path)
    except OSError as error:
        raise unreadable(name or path, error) from error
    if kind:
        raise DataError(f"{name or path} is {kind}, not a file", hint="remove it, or put the file in its place")
    if pointer:
        raise DataError(
            f"{name or path} is a pointer of Git LFS, not the file itself",
            hint="fetch the files that the pointers stand for: `git lfs pull` in the repository they come from",
        )
    return path


def check_memory(what: str, shape: tuple[int, ...], hint: str) -> None:
    """Raise `DataError`, naming both numbers, if an array of so many bytes has no room; nothing is taken for it."""
    wanted, free = math.prod(shape), environment.available_bytes()
    if free is not None and wanted > free:
        raise DataError(
            f"{what} need {units.data(wanted)} of memory, and {units.data(free)} are free",
            hint=hint,
        )


def visible(folder: Path) -> list[Path]:
    """The entries of a folder without hidden ones, in no order. Raises `DataError` for more than `MOST_ENTRIES`."""
    entries = list(itertools.islice(folder.iterdir(), MOST_ENTRIES + 1))
    _check_entries(folder, len(entries))
    return [entry for entry in entries if not entry.name.startswith(".")]


def is_folder(path: Path) -> bool:
    """Whether an entry is a folder, links followed. Raises `DataError` for one that cannot be told, as a dead link."""
    with explained(path):
        return S_ISDIR(path.stat().st_mode)


def entries_below(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """All entries under a folder that are `wanted`, in order, whatever they are; links to folders are not followed.

    Raises `DataError` for a folder that cannot be listed, where `Path.rglob` would leave its files out and say nothing,
    and for more than `MOST_ENTRIES`.
    """

    def stop(error: OSError) -> None:
        raise unreadable(error.filename or folder, error) from error

    found: list[Path] = []
    seen = 0
    for place, folders, files in os.walk(folder, onerror=stop):
        seen += len(folders) + len(files)
        _check_entries(folder, seen)
        found += [path for name in (*folders, *files) if wanted(path := Path(place, name))]
    return sorted(found)


def _check_entries(folder: Path, seen: int) -> None:
    if seen > MOST_ENTRIES:
        raise DataError(
            f"{folder} holds more than {MOST_ENTRIES:,} files and folders",
            hint="give a folder that holds the data alone, with no link to a disk in it",
        )
