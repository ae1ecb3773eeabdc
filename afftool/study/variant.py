"""One column of a study: a fusion in the host, with what it changes there. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from afftool.errors import SpecError
from afftool.spec import FusionSpec


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One column of a study: a fusion, the host's knobs it changes, and what it trains differently, if anything.

    `fusion` is the text as it was written, which is what reports show; `fusion_spec` is what it says.
    `against` names the variant it is compared with, where that is not the study's baseline.
    Variants with the same `draw` start their fusions from the same random numbers; another `draw` gives a fusion other
    ones (for A/A studies) and leaves the host's weights as they were.
    """

    name: str
    fusion: str
    knobs: tuple[tuple[str, str], ...] = ()
    recipe: tuple[tuple[str, Any], ...] = ()
    draw: str = ""
    against: str | None = None

    def __post_init__(self) -> None:
        if not self.name.strip() or "," in self.name:
            raise SpecError(f"{self.name!r} cannot name a variant", hint="use a short name without commas")
        _ = self.fusion_spec  # read now, so that a bad one is refused here

    @cached_property
    def fusion_spec(self) -> FusionSpec:
        """The fusion that the text names. Raises what `FusionSpec.parse` does."""
        return FusionSpec.parse(self.fusion)

    @classmethod
    def of(cls, fusion: str, name: str | None = None, against: str | None = None, **knobs: object) -> Variant:
        """A variant named after its fusion, or otherwise; `knobs` are the host's."""
        set_knobs = tuple((key, str(value)) for key, value in sorted(knobs.items()))
        return cls(name=name or fusion, fusion=fusion, knobs=set_knobs, against=against)
