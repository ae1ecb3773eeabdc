"""Folders in the temporary folder that go away with whoever made them, a process that was killed too.

A folder is named after its process, which holds a lock on it. What is left of one that was killed is found by its name
and cleared by the next process that makes such a folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NAME = re.compile(r"afftool-(\d+)-\w+")


@contextmanager
def scratch() -> Iterator[str]:
    """A temporary folder that goes away with the block, what is left of killed processes with its beginning."""
    clear_left()
    prefix = _prefix(os.getpid())
    with tempfile.TemporaryDirectory(prefix=prefix, dir=_temporary(), ignore_cleanup_errors=True) as folder:
        held = _lock(Path(folder))
        try:
            yield folder
        finally:
            if held is not None:
                os.close(held)


def clear_after(pid: int) -> None:
    """Remove what a process that has ended by force had."""
    for left in _temporary().glob(f"{_prefix(pid)}*"):
        shutil.rmtree(left, ignore_errors=True)


def clear_left() -> None:
    """Remove what processes left that were killed; nothing of one that lives, in another container too."""
    with contextlib.suppress(OSError):
        for folder in _temporary().iterdir():
            if is_left(folder):
                shutil.rmtree(folder, ignore_errors=True)


def is_left(folder: Path) -> bool:
    """Whether a folder is one of ours whose process is gone; one that is gone itself is of no process either."""
    named = _NAME.fullmatch(folder.name)
    if named is None or folder.parent != _temporary() or _lives(int(named[1])):
        return False
    if not folder.exists():
        return True
    held = _lock(folder)
    if held is None:
        return False
    os.close(held)
    return True


def _lives(pid: int) -> bool:
    """Whether there is such a process; where that cannot be asked, as if there were."""
    if os.name == "nt":  # where a signal of 0 would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _lock(folder: Path) -> int | None:
    """A lock on a folder of our own, held as long as the number it gives is open; None where it cannot be had."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _temporary() -> Path:
    return Path(tempfile.gettempdir()).resolve()


def _prefix(pid: int) -> str:
    return f"afftool-{pid}-"
