"""A store opened by a command: what of it could not be read is named on stderr, whatever comes of the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from afftool import console
from afftool.store import MOST_HIDDEN, Hidden, Store

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
