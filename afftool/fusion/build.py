"""From a fusion's name to a module, ours or the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from afftool.errors import AfftoolError, LoadError, SpecError, UnknownKey
from afftool.fusion.gated import GatedFusion
from afftool.fusion.plain import Addition, Concatenation
from afftool.registry import load
from afftool.spec import FusionSpec, Grammar

FusionFactory = Callable[[int], nn.Module]
"""Channels in, a fresh fusion of that many channels out. What a host takes."""

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
        return _build_own(spec, channels)
    return _STRATEGIES.get(spec.grammar.strategy, GatedFusion)(channels, spec.grammar)


def fusion_factory(fusion: str | FusionSpec) -> FusionFactory:
    """The factory a host takes: it builds a fresh `fusion` for any number of channels."""
    spec = FusionSpec.parse(fusion) if isinstance(fusion, str) else fusion
    return lambda channels: build_fusion(spec, channels=channels)


def _build_own(spec: FusionSpec, channels: int) -> nn.Module:
    """Construct the user's class with those of channels, reduction and ndim that it takes, and its own keys."""
    assert spec.target is not None
    make = load(spec.target)
    if not callable(make):
        raise LoadError(f"{spec.target} is not a class or a function", hint="point at the nn.Module class itself")
    options = dict(spec.options)
    # A class without an __init__ of its own shows nn.Module's, which is open-ended and takes nothing.
    takes_nothing = getattr(make, "__init__", None) is nn.Module.__init__
    parameters = {} if takes_nothing else dict(inspect.signature(make).parameters)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for key in options:
        if not open_ended and key not in named and key != "ndim":
            raise UnknownKey(f"{spec.name} takes no key {key!r}", hint=f"its signature is {inspect.signature(make)}")
    # `ndim` may only tell what maps to make; a signature without it is fine.
    arguments = {key: _literal(value) for key, value in options.items() if open_ended or key in named}
    if open_ended or "channels" in named:
        arguments.setdefault("channels", channels)
    if "ndim" in named:
        arguments.setdefault("ndim", spec.ndim)
    if "reduction" in named and parameters["reduction"].default is inspect.Parameter.empty:
        arguments.setdefault("reduction", 4)
    try:
        module = make(**arguments)
    except AfftoolError:
        raise
    except (Exception, SystemExit) as error:
        raise LoadError(
            f"{spec.name} could not be built: {type(error).__name__}: {error}",
            hint=f"it was called with {', '.join(f'{k}={v!r}' for k, v in arguments.items()) or 'nothing'}; "
            "channels, reduction and ndim are given where the signature names them",
        ) from error
    if not isinstance(module, nn.Module):
        raise LoadError(f"{spec.name} gave a {type(module).__name__}, not an nn.Module")
    return module


def _literal(text: str) -> Any:
    """A user's key value: whole number, number, true, false, none, or the text itself."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
