"""How a module of the user's own is called: with a map an argument, or with all of them in one list.

Its forward says so, or the text of the fusion (`call=list`, `inputs=3`). What was found and not told is said.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

from afftool.errors import LoadError
from afftool.own import with_forward
from afftool.spec import FusionSpec

MOST_FOUND = 8
"""More arguments than that, all needed, are no maps."""


def callable_with_maps(module: nn.Module, fusion: FusionSpec) -> tuple[nn.Module, str | None]:
    """The module, to be called as `module(*maps)`, and in words what was assumed of it.

    One that takes a list stays the same object with the same parameters; only its forward takes the maps apart first.
    Raises `LoadError` for a forward that takes another number of maps than `fusion.inputs`; the hint says the text
    that works.
    """
    if fusion.call == "list":
        return _given_a_list(module), None
    needed, most = _maps_taken(type(module), module.forward)
    if fusion.call == "each" or needed is None:
        return module, None
    count = fusion.inputs
    one_list = _wants_list(needed[0]) if len(needed) == 1 else None
    if count > 1 and (one_list or (one_list is None and len(needed) == most == 1)):
        words = f"{fusion}: its forward takes one argument, so it is given one list of maps; say {fusion}:call=list"
        return _given_a_list(module), None if one_list else f"{words} to be sure, or inputs=1 if it takes one map"
    names = ", ".join(one.name for one in needed) or "nothing"
    what = f"the forward of {fusion} takes"
    if len(needed) > count:
        raise LoadError(
            f"{what} {len(needed)} maps ({names}), and it would be given {count}",
            hint=f"say how many: `{_saying(fusion, len(needed))}`; or give defaults to what is no map",
        )
    if count > most:
        more = "" if fusion.tells_inputs else f", or `{fusion}:call=list` if that is a list of maps"
        raise LoadError(
            f"{what} no more than {most} map{'' if most == 1 else 's'} ({names}), and it would be given {count}",
            hint=f"say how many: `{_saying(fusion, max(1, len(needed)))}`{more}",
        )
    return module, None


def found_inputs(target: object) -> int | None:
    """How many maps the forward of a class needs where that is more than two; None where it is not known, or no more.

    Told before anything is built, so that a baseline of as many maps can be chosen.
    """
    if not (isinstance(target, type) and issubclass(target, nn.Module)):
        return None
    needed, _ = _maps_taken(target, target.forward, bound=False)
    return len(needed) if needed and 2 < len(needed) <= MOST_FOUND else None


def _saying(fusion: FusionSpec, count: int) -> str:
    return fusion.with_settings(inputs=count).text if fusion.maps is None else f"{fusion.name}:inputs={count}"


def _maps_taken(
    kind: type, forward: Callable[..., Any], *, bound: bool = True
) -> tuple[list[inspect.Parameter] | None, int | float]:
    """The arguments that a forward needs, None where it does not tell, and how many it takes at most."""
    if issubclass(kind, torch.jit.ScriptModule) or forward is nn.Module.forward:
        return None, 0
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):
        return None, 0
    if not bound and not isinstance(inspect.getattr_static(kind, "forward", None), staticmethod):
        parameters = parameters[1:]
    by_place = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    open_ended = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    return [one for one in by_place if one.default is one.empty], float("inf") if open_ended else len(by_place)


def _wants_list(argument: inspect.Parameter) -> bool | None:
    """Whether an argument is annotated as several maps; None where it does not say."""
    annotation = argument.annotation
    if annotation is argument.empty:
        return None
    text = annotation if isinstance(annotation, str) else repr(annotation)
    if any(word in text.lower() for word in ("list", "tuple", "sequence", "iterable", "collection")):
        return True
    return False if "Tensor" in text else None


def _given_a_list(module: nn.Module) -> nn.Module:
    if isinstance(module, torch.jit.ScriptModule) or "forward" in vars(module):
        return _Listed(module)
    kind: Any = type(module)
    module.__class__ = _listing(kind)
    return module


@cache
def _listing(kind: Any) -> Any:
    """The same class, but for a forward that puts its maps into a list."""
    return with_forward(kind, lambda self, *maps: kind.forward(self, list(maps)))


class _Listed(nn.Module):
    """Around what cannot be given another class: a scripted module, or one whose forward is its own attribute."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *maps: torch.Tensor) -> Any:
        """Call it with one list."""
        return self.module(list(maps))
