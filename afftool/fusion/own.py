"""A module of the user's own as a fusion: what its signature is given, and how it is called."""

from __future__ import annotations

from torch import nn

from afftool import console
from afftool.errors import LoadError
from afftool.fusion.calling import callable_with_maps, found_inputs
from afftool.fusion.signature import missing, tell
from afftool.fusion.widths import check_widths, told_as_width, without_torchs_words
from afftool.own import Offer, build_own, parameters_of
from afftool.registry import load
from afftool.spec import FusionSpec
from afftool.spec.formula import NAME, fill, has_formula
from afftool.spec.text import read_literal

_assumed: dict[str, bool] = {}
"""What was assumed of modules of the user's own, and whether it was said."""


def build_own_fusion(spec: FusionSpec, channels: int) -> nn.Module:
    """Construct the user's class with what it takes of channels, reduction and ndim, and its own keys.

    `{channels}` in a key's value is the width. The module is to be called as `module(*maps)`. Raises `LoadError`,
    `UnknownKey`, `SpecError`.
    """
    assert spec.target is not None
    texts = dict(spec.options)
    named, _ = parameters_of(spec.target)
    given = {key: read_literal(fill(key, text, channels)) for key, text in texts.items()}
    for key in _ours(spec):
        if key not in named:  # it may only tell what maps to make, and how they are given
            given.pop(key, None)
    told = tell(spec.text, named, given, texts, channels)
    told_elsewhere = told.guessed or any(has_formula(text) for text in texts.values())
    offers = {
        "channels": Offer(value=channels, to_any=not told_elsewhere),
        "ndim": Offer(value=spec.ndim, to_any="ndim" in texts),
        "reduction": Offer(value=4, keeps_default=True),
    }
    lacking = missing(named, {*told.given, *offers})
    hint = "channels, reduction and ndim are given where the signature names them"
    if lacking:
        width = f"{{{NAME}}}"
        keys = ":".join(f"{key}={f'[{width},{width}]' if 'list' in key else width}" for key in lacking)
        hint += (
            f"; it needs {' and '.join(lacking)} too: tell what, as `{spec}:{keys}`, where {width} is the width; or "
            "name a function of channels that makes it, where no text can say it"
        )
    with without_torchs_words():
        try:
            module = build_own(spec.name, spec.target, told.given, offers=offers, hint=hint)
        except LoadError as error:
            raise told_as_width(spec.text, error, channels) from error.__cause__
    check_widths(spec.text, module, channels)
    module, call = callable_with_maps(module, spec)
    for words in (*told.words, *([call] if call else [])):
        _assumed.setdefault(words, False)
    return module


def settled(spec: FusionSpec) -> FusionSpec:
    """The fusion with the number of maps that its class's forward needs, where its text does not say and it is above 2.

    Imports the user's file, so not for the reading side. Raises `LoadError`.
    """
    if spec.target is None or spec.tells_inputs or spec.call is not None:
        return spec
    count = found_inputs(load(spec.target))
    if count is None:
        return spec
    found = spec.with_settings(inputs=count)
    _assumed.setdefault(f"{spec}: its forward takes {count} maps; say {found} to be sure", False)
    return found


def say_assumptions() -> None:
    """Say what was assumed of modules of the user's own since the last time, each thing once in a process."""
    for words in new_assumptions():
        console.note(words)


def new_assumptions() -> list[str]:
    """What `say_assumptions` would say, for whoever says it elsewhere."""
    new = [words for words, said in _assumed.items() if not said]
    _assumed.update(dict.fromkeys(new, True))
    return new


def _ours(spec: FusionSpec) -> list[str]:
    """The keys of a text that tell afftool what maps to make."""
    found = {"ndim": True, "maps": spec.maps is not None, "call": spec.call is not None, "inputs": spec.tells_inputs}
    return [key for key, ours in found.items() if ours]
