"""Names in a row, as a sentence has them."""

from __future__ import annotations

from collections.abc import Sequence


def all_of(names: Sequence[str]) -> str:
    """`a, b and c`; of one name that name."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def some_of(names: Sequence[str], shown: int) -> str:
    """The first names, and of more than are `shown` how many there are: `a, b and 3 more`."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")
