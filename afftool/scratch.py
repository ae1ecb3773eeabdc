"""Folders in the temporary folder that go away with whoever made them, a process that was killed too."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch() -> Iterator[str]:
    """A temporary folder that goes away with the block."""
    with tempfile.TemporaryDirectory(prefix=_prefix(os.getpid()), ignore_cleanup_errors=True) as folder:
        yield folder


def clear_after(pid: int) -> None:
    """Remove what a process that has ended by force had."""
    for left in Path(tempfile.gettempdir()).glob(f"{_prefix(pid)}*"):
        shutil.rmtree(left, ignore_errors=True)


def _prefix(pid: int) -> str:
    return f"afftool-{pid}-"
