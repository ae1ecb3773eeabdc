"""The columns of a study: a fusion in the host, with what it changes there; alone, or across a knob of the host.

A study that tries every fusion across a knob, as `depth` does, makes the same crossing over other fusions. Nothing
here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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


def label(knob: str, value: str) -> str:
    """A knob's value in a variant's name: `b=2`, `stages 2-3`, `none`."""
    if knob not in ("stage", "stages"):
        return f"{knob}={value}"
    return value if value == "none" else f"stage {value}" if value.isdecimal() else f"stages {value}"


def crossed(variants: Sequence[Variant], baseline: str, across: str, texts: Sequence[str]) -> tuple[Variant, ...]:
    """The fusions `texts` at every value of the knob `across` that the variants have, the fusions innermost.

    What is a variant already keeps its name; its name chooses it alone. At each value the baseline's fusion is what
    the others are compared with, or else the first given. A baseline that is not crossed itself (`none`) stays.
    """
    own = {variant.name: variant for variant in variants}
    first = own[baseline]
    others = [variant for variant in variants if variant is not first]
    # A baseline that is alone at its value and with its fusion, as placement's `none`, is what all are compared with,
    # and stays one variant. Otherwise (depth's `add`) the baseline's fusion is crossed like every other.
    alone = not any(_value(v, across) == _value(first, across) or v.fusion_spec == first.fusion_spec for v in others)
    # The knobs of a value are those of the first variant there (the dictionary keeps the last one it is given).
    at = {_value(v, across): v.knobs for v in reversed(variants) if not (alone and v is first)}
    values = [value for value in dict.fromkeys(_value(v, across) for v in variants) if value is not None]
    fusions = {text: FusionSpec.parse(text) for text in texts if text not in own}
    made = [first] if alone and fusions else []
    made += [own[text] for text in texts if text in own]
    for value in values:
        for text, fusion in fusions.items():
            if value in at and not (alone and fusion == first.fusion_spec):
                new = Variant(name=f"{text} {label(across, value)}", fusion=text, knobs=at[value])
                made.append(_same(own, new))
    made = list({variant.name: variant for variant in made}.values())  # one that was named and crossed too stands once
    return tuple(made) if alone else _against_their_own(made, first.fusion_spec, across)


def _same(own: dict[str, Variant], new: Variant) -> Variant:
    """The study's own variant, by name or because it trains the same; else the new one."""
    if new.name in own:
        return own[new.name]
    same = (v for v in own.values() if v.knobs == new.knobs and v.fusion_spec == new.fusion_spec)
    return next((v for v in same if not (v.recipe or v.draw)), new)


def _against_their_own(variants: list[Variant], fusion: FusionSpec, across: str) -> tuple[Variant, ...]:
    """Each against the variant with `fusion` at its value, or the first there where that is not among them."""
    names, judged = {variant.name for variant in variants}, []
    for variant in variants:
        there = [other for other in variants if _value(other, across) == _value(variant, across)]
        reference = next((other for other in there if other.fusion_spec == fusion), there[0])
        against = variant.against if variant.against in names else reference.name
        judged.append(dataclasses.replace(variant, against=None if variant is reference else against))
    return tuple(judged)


def _value(variant: Variant, knob: str) -> str | None:
    return dict(variant.knobs).get(knob)
