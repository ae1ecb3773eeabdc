"""A place where a network joins maps, as it is told, chosen and stored; `afftool.graft.sites` finds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["add", "concat"]
Scenario = Literal["short-skip", "long-skip", "same-layer"]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place where a network joins maps. `channels` go by age: the skip first, then the branch.

    `stage` counts the sizes at which the network joins maps, the largest first, from 1. `line` is where its source does
    so, `path` the module whose forward that is. `alike` is how many sites stand in the same place of repeated blocks,
    `nth` which of its kind it is in its module. `flat` sites join what has other dimensions than the network's input,
    boxes for example: they are chosen by number alone.
    """

    number: int
    kind: Kind
    path: str
    line: str
    code: str
    stage: int
    channels: tuple[int, ...]
    size: tuple[int, ...]
    scenario: Scenario
    alike: int
    nth: int
    flat: bool = False

    @property
    def width(self) -> int:
        """The channels it is fused at: the widest map's, so that none loses any before it is fused."""
        return max(self.channels)

    @property
    def out(self) -> int:
        """The channels that what follows expects."""
        return self.channels[0] if self.kind == "add" else sum(self.channels)

    @property
    def equal(self) -> bool:
        """Whether its maps have one width."""
        return len(set(self.channels)) == 1

    @property
    def where(self) -> str:
        """The module whose forward it stands in, in words."""
        return self.path or "the network"

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is called by in the other mode's graph: its kind, its module, and which of those there it is."""
        return self.kind, self.path, self.nth

    @property
    def twin(self) -> tuple[object, ...]:
        """What sites that may share one fusion have in common."""
        return self.kind, self.place, self.line, self.nth, self.channels

    @property
    def place(self) -> str:
        """Its path with the numbers of repeated blocks left out, alike for sites that repeat."""
        return template(self.path)


def template(path: str) -> str:
    """`layer1.*.conv` for `layer1.0.conv`."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)
