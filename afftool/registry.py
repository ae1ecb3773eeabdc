"""From a name to the object behind it: catalog, entry points and `pkg.mod:Attribute` of the user's own.

Nothing is imported until its name is used, and a typo is answered from the names alone.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from afftool.errors import AfftoolError, LoadError, UnknownKey, UnknownName

if TYPE_CHECKING:
    from torch import nn


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """The error for a `name` that is not among the `known` ones, with the nearest of them as its hint."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return UnknownName(f"unknown {kind} {name!r}", hint=hint)


@cache
def entry_points(group: str) -> dict[str, str]:
    """Names that installed packages add, as `{name: "pkg.mod:Attribute"}`."""
    from importlib import metadata

    return {point.name: point.value for point in metadata.entry_points(group=group)}


def load(path: str) -> Any:
    """Import `pkg.mod:Attribute`; modules are found from the current directory too.

    Raises `LoadError` if the module cannot be imported or has no such attribute.
    """
    module_name, _, attribute = path.partition(":")
    try:
        with _current_directory_importable():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise LoadError(
                f"no module named {error.name!r} (for {path!r})",
                hint="modules are looked for in the installed packages and in the current directory; cd to its folder",
            ) from error
        raise LoadError(
            f"importing {module_name!r} failed: {error}", hint=f"install {error.name!r} or remove that import"
        ) from error
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` may end in one
        raise LoadError(
            f"importing {module_name!r} failed: {type(error).__name__}: {error}",
            hint=f"run `python -c 'import {module_name}'` to see the whole traceback",
        ) from error
    target: Any = module
    for part in attribute.split("."):
        try:
            target = getattr(target, part)
        except AttributeError as error:
            public = [name for name in vars(module) if not name.startswith("_")]
            near = difflib.get_close_matches(part, public, n=1, cutoff=0.5)
            hint = f"did you mean {module_name}:{near[0]}?" if near else None
            raise LoadError(f"module {module_name!r} has no attribute {attribute!r}", hint=hint) from error
    return target


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A value for a key of a user's callable that its signature may name; the text's own key goes before it.

    `to_any` gives it to a signature that takes any key too; `keeps_default` leaves a default of the signature's own.
    """

    value: Any
    to_any: bool = False
    keeps_default: bool = False


def build_own(
    name: str, target: str, given: Mapping[str, Any], *first: object, offers: Mapping[str, Offer], hint: str
) -> nn.Module:
    """The module that a callable of the user's own makes of `first`, the keys `given` in its text, and what is offered.

    This is the one place where such an object is built. Raises `UnknownKey` for a key it does not take, and
    `LoadError`, with `hint`, if it cannot be loaded or called or gives something else than an `nn.Module`.
    """
    from torch import nn

    make = load(target)
    if not callable(make):
        raise LoadError(f"{target} is not a class or a function", hint=hint)
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
        module = make(*first, **arguments)
    except AfftoolError:
        raise
    except (Exception, SystemExit) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or ("no keys" if first else "nothing")
        raise LoadError(
            f"{name} could not be built: {type(error).__name__}: {error}", hint=f"it was called with {shown}; {hint}"
        ) from error
    if not isinstance(module, nn.Module):
        raise LoadError(f"{target} gave a {type(module).__name__}, not an nn.Module", hint=hint)
    return module


def _keywords(make: Any, target: str) -> tuple[Mapping[str, inspect.Parameter], bool]:
    """The parameters that can be given by name, and whether any other name is taken too."""
    from torch import nn

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


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    """First on the path while the user's module loads, so that it wins over a stale install; last afterwards."""
    path = os.getcwd()
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)
        if path not in sys.path:
            sys.path.append(path)
