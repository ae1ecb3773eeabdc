"""The one place where an object of the user's own, `pkg.mod:Name` with its keys, becomes a module."""

from __future__ import annotations

import inspect
import operator
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from afftool import global_state
from afftool.errors import AfftoolError, LoadError, UnknownKey
from afftool.registry import load


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A value for a key of a user's callable that its signature may name; the text's own key goes before it.

    `to_any` gives it to a signature that takes any key too; `keeps_default` leaves a default of the signature's own.
    """

    value: Any
    to_any: bool = False
    keeps_default: bool = False


_NAMED = "name the class of the nn.Module itself, or a function that makes one"


def build_own(
    name: str,
    target: str,
    given: Mapping[str, Any],
    *first: object,
    offers: Mapping[str, Offer],
    hint: str,
    attribute: str | None = None,
) -> nn.Module:
    """The module that a callable of the user's own makes of `first`, the keys `given` in its text, and what is offered.

    It is the `attribute` of what was made, if one is named. This is the one place where such an object is built. Raises
    `UnknownKey` for a key it does not take, and `LoadError` if it cannot be loaded or called (`hint` says what it is
    given) or makes something else than an `nn.Module`.
    """
    make = load(target)
    if not callable(make):
        raise LoadError(f"{target} is not a class or a function", hint=_NAMED)
    arguments = dict(given)
    named, takes_any = _keywords(make, target)
    for key in given:
        if key not in named and not takes_any:
            raise UnknownKey(f"{name} takes no key {key!r}", hint=f"its signature is {inspect.signature(make)}")
    for key, offer in offers.items():
        default = named[key].default if key in named else inspect.Parameter.empty
        wanted = key in named or (takes_any and offer.to_any)
        if wanted and not (offer.keeps_default and default is not inspect.Parameter.empty):
            arguments.setdefault(key, offer.value)
    try:
        with _warned_once(), global_state.kept(target, "when it was built"):  # filters it sets are seen within
            module = make(*first, **arguments)
            if attribute is not None:
                module = operator.attrgetter(attribute)(module)
    except AfftoolError:
        raise
    except (Exception, SystemExit) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or ("no keys" if first else "nothing")
        raise LoadError(
            f"{name} could not be built: {type(error).__name__}: {error}", hint=f"it was called with {shown}; {hint}"
        ) from error
    if not isinstance(module, nn.Module):
        raise LoadError(f"{target} gave a {type(module).__name__}, not an nn.Module", hint=_NAMED)
    return module


_WARNED: set[tuple[type[Warning], str]] = set()


@contextmanager
def _warned_once() -> Iterator[None]:
    """A module is built many times, and what its constructor warns of is told by the first."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for one in caught:
        text = str(one.message)
        if (one.category, text) not in _WARNED:
            _WARNED.add((one.category, text))
            warnings.warn_explicit(text, one.category, one.filename, one.lineno)


def parameters_of(target: str) -> tuple[Mapping[str, inspect.Parameter], bool]:
    """The parameters by name of a callable of the user's own, and whether it takes any other. Raises `LoadError`."""
    make = load(target)
    return _keywords(make, target) if callable(make) else ({}, True)


def _keywords(make: Any, target: str) -> tuple[Mapping[str, inspect.Parameter], bool]:
    """The parameters that can be given by name, and whether any other name is taken too."""
    # A class without an __init__ of its own shows nn.Module's, which is open-ended and takes nothing.
    if getattr(make, "__init__", None) is nn.Module.__init__:
        return {}, False
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError) as error:
        raise LoadError(
            f"{target} does not tell what it is called with: {error}", hint="wrap it in a function"
        ) from error
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)


@cache
def with_forward(kind: Any, forward: Callable[..., Any]) -> Any:
    """The same class of module but for its forward: nothing else is added to a call, and an object can be given it."""
    members = {"forward": forward, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return types.new_class(kind.__name__, (kind,), exec_body=lambda names: names.update(members))
