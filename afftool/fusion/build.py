"""From a fusion's name to a module, ours or the user's own."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from afftool.errors import SpecError
from afftool.fusion.gated import GatedFusion
from afftool.fusion.own import build_own_fusion
from afftool.fusion.plain import Addition, Concatenation
from afftool.spec import FusionSpec, Grammar

FusionFactory = Callable[..., nn.Module]
"""Channels in, a fresh fusion of that many channels out. What a host takes.

A network that fusions are grafted into asks for other dimensions and numbers of maps too, as `fusion(64, ndim=3)`.
"""

_STRATEGIES: dict[str, Callable[[int, Grammar], nn.Module]] = {"add": Addition, "concat": Concatenation}


def build_fusion(fusion: str | FusionSpec, *, channels: int, **settings: object) -> nn.Module:
    """Build a fusion: a preset's name, a text such as `aff:reduction=16`, `pkg.mod:Class`, or a spec.

    `settings` override the text: `build_fusion("iaff", channels=64, reduction=4, ndim=2)`. The module is called with
    feature maps `(N, channels, *S)`, two unless `inputs` says otherwise, and returns one of their shape.
    Raises `UnknownName`, `UnknownKey`, `SpecError`, or `LoadError` for a module of the user's own.
    """
    spec = FusionSpec.parse(fusion) if isinstance(fusion, str) else fusion
    if settings:
        spec = spec.with_settings(**settings)
    if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
        raise SpecError(f"channels={channels!r} is not a usable width", hint="a whole number from 1")
    if spec.grammar is None:
        return build_own_fusion(spec, channels)
    return _STRATEGIES.get(spec.grammar.strategy, GatedFusion)(channels, spec.grammar)


def fusion_factory(fusion: str | FusionSpec) -> FusionFactory:
    """The factory a host takes: it builds a fresh `fusion` for any number of channels."""
    spec = FusionSpec.parse(fusion) if isinstance(fusion, str) else fusion
    return lambda channels, **settings: build_fusion(spec, channels=channels, **settings)
