"""Studies that try every fusion across a knob of the host, as `depth` does: the same crossing over other fusions.

Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from afftool.spec import FusionSpec
from afftool.study.variant import Variant


def label(knob: str, value: str) -> str:
    """A knob's value in a variant's name: `b=2`, `stages 2-3`, `none`."""
    if knob != "stages":
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
    alone = not any(_value(v, across) == _value(first, across) or v.fusion_spec == first.fusion_spec for v in others)
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
    made = list({variant.name: variant for variant in made}.values())
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
