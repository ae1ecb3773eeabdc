"""Commands whose process ended in the middle: said by the next one, once where that writes to the same store."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from afftool import console
from afftool.unfinished import left_beside


def say_left(store: Path, *, clear: bool = True) -> None:
    """Say what ended in the middle beside this store; `clear` forgets it, as a command does that only reads may not."""
    for left in left_beside(store):
        console.note(left.text)
        if clear:
            with suppress(OSError):
                left.path.unlink()
