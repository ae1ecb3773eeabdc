"""Files that people name: written whole or not at all, beside and then moved, and never over what is not ours.

Nothing goes through a link or over a database, which a run store is; over a file of ours without a word; over anything
else only where the caller lets it be forced. A pipe or a terminal, as `/dev/stdout` and `>(command)` name one, is
written to as it is.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from afftool.errors import AfftoolError, LoadError

HEAD_BYTES = 64 * 1024
"""Of a file that is there already, so much is looked at to tell whose it is."""
_DATABASES = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""How SQLite's files begin, its write-ahead logs too."""
_BESIDE_ONE = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Files of one kind: what one is called, how one of ours is known by its head, and what to do where none can be.

    `force` is the option that lets one replace any file, where there is such an option.
    """

    name: str
    is_ours: Callable[[bytes], bool]
    instead: str
    force: str | None = None
    error: type[AfftoolError] = LoadError


def refuse(path: Path, kind: Kind, *, force: bool = False) -> None:
    """Raises `kind.error` where a file of that kind cannot, or may not, be written, before any work is done for it.

    Nothing is left there, folders neither. An empty file is anybody's.
    """
    try:
        if is_stream(path):
            return
        _refuse_beside_a_database(path, kind)
        found = _state(path)
        if found is not None:
            _refuse_what_is_there(path, found, kind, force)
        with tempfile.TemporaryFile(dir=_nearest_folder(path.parent)):
            pass
    except OSError as problem:
        raise _unwritable(path, problem, kind) from problem


def refuse_folder(path: Path, *, option: str, within: Path | None = None) -> None:
    """Raises `LoadError` where files in this folder, which may not be there yet, cannot be written.

    A folder that we name ourselves, below the one `within` that the user named, may be no link.
    """
    hint = f"name another folder by {option}"
    ours = [folder for folder in (path, *path.parents) if within and within in folder.parents]
    if link := next((folder for folder in ours if folder.is_symlink()), None):
        raise LoadError(f"{link} is a link, and nothing is written through one", hint=hint)
    try:
        with tempfile.TemporaryFile(dir=_nearest_folder(path)):
            pass
    except OSError as problem:
        raise LoadError(f"{path} cannot be written: {problem.strerror}", hint=hint) from problem


def write(path: Path, text: str, kind: Kind, *, force: bool = False) -> None:
    """Write a file of that kind in UTF-8; its folders are made. Raises `kind.error`, and leaves what was there."""
    try:
        if is_stream(path):
            _pour(path, text.encode(errors="backslashreplace"))
            return
        _refuse_beside_a_database(path, kind)
        found = _state(path)
        if found is not None:
            _refuse_what_is_there(path, found, kind, force)
        with replacing(path) as part:
            part.write_bytes(text.encode(errors="backslashreplace"))
    except OSError as problem:
        raise _unwritable(path, problem, kind) from problem


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file beside `path`, with its suffixes, that takes its place if the block succeeds, and goes if it fails.

    Permissions are those of the file it replaces, else as the umask has it. Raises `OSError`, also for what is no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{os.urandom(4).hex()}-{path.name[-50:]}")
    found = _state(path)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        if found is not None:
            part.chmod(stat.S_IMODE(found.st_mode))
        yield part
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def left_of(path: Path) -> Iterator[Path]:
    """What killed processes left beside `path`."""
    return path.parent.glob(f".part-*-{path.name[-50:]}")


def is_stream(path: Path) -> bool:
    """Whether a pipe or a device lies there, links followed. Raises `OSError`."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _state(path: Path) -> os.stat_result | None:
    """What lies there, a link itself; None for nothing. Raises `OSError` for what no file can replace."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.EEXIST, f"it is a link to {os.readlink(path)}, and nothing is written through one")
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EEXIST, "it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EEXIST, "it is no file")
    if not os.access(path, os.W_OK):
        raise OSError(errno.EEXIST, "it is write-protected")
    return found


def _refuse_beside_a_database(path: Path, kind: Kind) -> None:
    """Raises `kind.error` for a name under which SQLite keeps its own beside a database, whether it does now or not."""
    if _belongs_to_one(path):
        raise kind.error(
            f"{path} is a database's own, which it keeps beside it; nothing is written there", hint=kind.instead
        )


def _refuse_what_is_there(path: Path, found: os.stat_result, kind: Kind, force: bool) -> None:
    """Raises `kind.error` for a file that may not be replaced, and `OSError` for one that cannot be looked at."""
    head = _head(path)
    if head.startswith(_DATABASES):
        raise kind.error(f"{path} is a database, as run stores are; nothing is written over one", hint=kind.instead)
    # An editor may have put a mark before it, and git, on another system, other line ends into it.
    if found.st_size and not force and not kind.is_ours(head.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")):
        hint = f"{kind.instead}, or replace this one by {kind.force}" if kind.force else kind.instead
        raise kind.error(f"{path} is there already, and is no {kind.name}", hint=hint)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _belongs_to_one(path: Path) -> bool:
    """Whether it is what SQLite keeps beside a database."""
    for ending in _BESIDE_ONE:
        database = path.with_name(path.name.removesuffix(ending))
        if database != path and database.is_file():
            return _head(database).startswith(_DATABASES)
    return False


def _nearest_folder(folder: Path) -> Path:
    """The folder, or the nearest above it that is there already. Raises `OSError` where that is no folder."""
    while not folder.is_dir():
        if folder.exists() or folder == folder.parent:
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder")
        folder = folder.parent
    return folder


def _pour(path: Path, data: bytes) -> None:
    """Write to a pipe or device. One that nobody reads is not waited for. Raises `OSError`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as problem:
        if problem.errno == errno.ENXIO and path.is_fifo():
            raise OSError(errno.ENXIO, "nobody reads that pipe") from problem
        raise
    with os.fdopen(descriptor, "wb") as stream:
        os.set_blocking(stream.fileno(), True)
        stream.write(data)


def _unwritable(path: Path, problem: OSError, kind: Kind) -> AfftoolError:
    return kind.error(f"{path} cannot be written: {problem.strerror}", hint=kind.instead)
