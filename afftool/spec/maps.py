"""The maps that a module of the user's own is given, where they are not all alike: `maps=c@s+2c@s/2`.

Each map is `channels@size`, told as numbers (`64@56`, `64@56x28`) or by the case's own channels `c` and size `s`
(`2c@s/2`: twice the channels, half the size). A size that does not divide is rounded up, as a strided layer does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from afftool.errors import SpecError
from afftool.spec.amounts import check_whole
from afftool.spec.text import parse_size

KEY = "maps"
HINT = "maps are written channels@size and joined by +, as maps=c@s+2c@s/2 or maps=64@56+128@28: c and s are the case's"
_EXTENT = r"(?:\d+|(?:\d+\*?)?{letter}(?:/\d+)?)"
_MAP = re.compile(
    f"(?P<channels>{_EXTENT.format(letter='c')})(?:@(?P<size>{_EXTENT.format(letter='s')}|\\d+(?:x\\d+)+))?"
)
_RELATIVE = re.compile(r"(?:(?P<times>\d+)\*?)?[cs](?:/(?P<by>\d+))?")


@dataclass(frozen=True)
class MapText:
    """One map as it is told: its channels and its size, each a number or relative to the case's."""

    channels: str
    size: str

    def shape(self, channels: int, size: Sequence[int]) -> tuple[int, ...]:
        """`(channels, *size)` for a case of these. Raises `SpecError` where they do not fit."""
        share, by = _share(self.channels, channels)
        whole, rest = divmod(share, by)
        if rest or not whole:
            raise SpecError(f"{self.channels} is no whole number at {channels} channels", hint="choose other channels")
        if relative := _RELATIVE.fullmatch(self.size):
            times, by = int(relative["times"] or 1), int(relative["by"] or 1)
            shape = (whole, *(-(-times * extent // by) for extent in size))
        else:
            shape = (whole, *parse_size(self.size, len(size)))
        for number in shape:
            check_whole(f"an extent of {self.channels}@{self.size}:", number, hint=HINT)
        return shape


def _share(text: str, value: int) -> tuple[int, int]:
    """What is divided, and by what."""
    relative = _RELATIVE.fullmatch(text)
    if relative is None:
        return int(text), 1
    return int(relative["times"] or 1) * value, int(relative["by"] or 1)


def read_maps(text: str) -> tuple[MapText, ...] | None:
    """The maps that a value of the key `maps` tells; None for a value that is the module's own, such as a number.

    Raises `SpecError` for one that means maps and is not written so.
    """
    if "@" not in text and not ("+" in text and all(map(_MAP.fullmatch, text.split("+")))):
        return None
    found = [_MAP.fullmatch(part) for part in text.split("+")]
    if any(re.search(r"/0+(?!\d)", part) for part in text.split("+")) or not all(found):
        raise SpecError(f"maps={text} tells no maps", hint=HINT)
    return tuple(MapText(one["channels"], one["size"] or "s") for one in found if one)
