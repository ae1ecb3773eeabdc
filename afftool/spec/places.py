"""Where a grafted network fuses: how many maps of what shape (`add 2*64@56x56`), and the bare fusion there."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import get_args

from afftool.errors import SpecError
from afftool.spec.case import CaseSpec
from afftool.spec.fusion import FusionSpec
from afftool.spec.host import MODULE
from afftool.spec.site import Kind
from afftool.spec.text import show_size

_TEXT = re.compile(r"(?P<kind>\w+) (?P<maps>\d{1,5})\*(?P<channels>\d{1,12})@(?P<size>\d{1,12}(x\d{1,12}){0,2})")


@dataclass(frozen=True, order=True)
class Place:
    """What stood at a site, and that so many maps of these channels and this size are fused there."""

    kind: Kind
    maps: int
    channels: int
    size: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Place:
        """The place that has this text. Raises `SpecError`."""
        found = _TEXT.fullmatch(text)
        if found is None or found["kind"] not in get_args(Kind):
            raise SpecError(f"{text!r} is no place of a network", hint="as add 2*64@56x56")
        size = tuple(int(extent) for extent in found["size"].split("x"))
        return cls(found["kind"], int(found["maps"]), int(found["channels"]), size)  # type: ignore[arg-type]

    @property
    def text(self) -> str:
        """As it is stored."""
        return f"{self.kind} {self.maps}*{self.channels}@{show_size(self.size)}"

    def fusion(self, fusion: FusionSpec) -> FusionSpec:
        """This fusion as it is made here: of as many maps of as many dimensions. Raises `SpecError` where it cannot."""
        return fusion.of_maps(self.maps, len(self.size))

    def alone(self, case: CaseSpec, fusion: FusionSpec) -> CaseSpec:
        """The bare fusion at this shape, run as `case` is. Raises `SpecError` where it cannot be."""
        own = self.fusion(fusion)
        return dataclasses.replace(case, fusion=own, host=MODULE, channels=self.channels, size=self.size)
