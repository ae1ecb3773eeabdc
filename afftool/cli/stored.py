"""A store as a command meets it: what of it cannot be read, and what ended in the middle beside it, is said on stderr.

Whatever comes of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from afftool import console
from afftool.store import MOST_HIDDEN, Hidden, Store
from afftool.unfinished import left_beside

_NAMED = 10


@contextmanager
def opened(path: Path, *, create: bool = False) -> Iterator[Store]:
    """The store, as `Store.open` has it; its hidden rows are named in the end."""
    with Store.open(path, create=create) as store:
        try:
            yield store
        finally:
            name_hidden(store.path, store.hidden, "cannot be read and is left out")


def name_hidden(path: Path, hidden: Sequence[Hidden], what: str) -> None:
    """Name the first of these rows, and say how many there are."""
    for row in hidden[:_NAMED]:
        console.note(f"warning: {path}: {row}; it {what}")
    if len(hidden) > _NAMED:
        more = " or more" if len(hidden) == MOST_HIDDEN else ""
        console.note(f"warning: {path}: {len(hidden) - _NAMED:,}{more} further rows, of which the same is true")


def say_left(store: Path, *, clear: bool = True) -> None:
    """Say what ended in the middle beside this store; `clear` forgets it, as a command does that only reads may not."""
    for left in left_beside(store):
        console.note(left.text)
        if clear:
            with suppress(OSError):
                left.path.unlink()
