"""How large a number of a request may be. What is beyond is refused in words before any work, and never tried.

The bounds leave alone whatever can be of use: they are there for a slip of the finger, and for a text from elsewhere.
"""

from __future__ import annotations

import math
import reprlib

from afftool.errors import SpecError

MOST_WHOLE = 2**31 - 1
"""Of channels, extents, batches, images, seeds: libraries below count in 32 bits, and nothing larger fits a machine."""
MOST_CASES = 10_000
"""Cases of one command, and cells of one study."""
MOST_SEEDS = 1_000
MOST_PROCESSES = 1_000
MOST_THREADS = 4_096
LONGEST_S = 1e9
"""Thirty years."""


def check_whole(name: str, number: int, *, least: int = 1, most: int = MOST_WHOLE, hint: str) -> None:
    """Refuse a number outside of these; a `name` such as `b=` is a key's. Raises `SpecError`."""
    if not least <= number <= most:
        raise SpecError(f"{_told(name, number)} is no whole number from {least} to {most:,}", hint=hint)


def read_whole(name: str, text: str, *, least: int = 1, most: int = MOST_WHOLE, hint: str) -> int:
    """A whole number from its digits. Raises `SpecError`."""
    if not text.isdecimal() or len(text) > 20:  # Python reads no number of thousands of digits
        raise SpecError(f"{_told(name, text)} is no whole number from {least} to {most:,}", hint=hint)
    check_whole(name, int(text), least=least, most=most, hint=hint)
    return int(text)


def check_above_0(name: str, number: float, *, most: float = LONGEST_S, hint: str) -> None:
    """Refuse what is no number above 0, up to `most`; not-a-number is refused as well. Raises `SpecError`."""
    if not 0 < number <= most:
        up_to = "" if most == math.inf else f" and at most {most:,.10g}"
        raise SpecError(f"{name} must be above 0{up_to}, not {number:g}", hint=hint)


def _told(name: str, value: object) -> str:
    """`--seeds 0`, and `b=0` for a name that ends so."""
    return f"{name}{'' if name.endswith('=') else ' '}{reprlib.repr(value)}"
