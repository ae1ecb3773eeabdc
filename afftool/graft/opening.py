"""A network of the user's own as a host: opened, given its classes, looked at, and fusions put in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cache
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn

from afftool.errors import LoadError, SpecError
from afftool.fusion import FusionFactory
from afftool.graft.head import CLASS_KEYS, entry_of, give_classes, given_by
from afftool.graft.network import MODES, Survey, graft
from afftool.graft.trace import Mode
from afftool.lazy import lazy_layers, settle
from afftool.own import build_own, parameters_of, with_forward
from afftool.registry import load
from afftool.spec import HostSpec
from afftool.spec.graft import SELECTION_KEYS, Graft
from afftool.spec.text import read_literal

Shapes = Sequence[tuple[int, ...]]
MOST_SURVEYS = 8
_surveys: dict[tuple[object, ...], Survey] = {}
"""What was found in the networks that this process met last: one that is built again need not be traced again."""


def open_network(host: HostSpec, shapes: Shapes) -> nn.Module:
    """The user's network as its text says, with as many classes, before anything is grafted.

    `shapes` are those of its inputs. Raises `LoadError` and `SpecError`.
    """
    said = _said(host)
    assert host.target is not None
    net = _built(host, said, host.target)
    if lazy_layers(net):
        settle(net, example(net, shapes))
    if said.classes is not None and (said.head is not None or not _class_key(host.target)):
        entry = None if said.output is None else read_literal(said.output)
        net = give_classes(net, example(net, shapes), said.classes, said.head, entry)
    return net


def grafted(
    host: HostSpec,
    fusion: FusionFactory | None,
    shapes: Shapes,
    *,
    dtype: torch.dtype = torch.float32,
    modes: Sequence[Mode] = MODES,
    check: Callable[[Survey], None] = lambda survey: None,
) -> nn.Module:
    """The network with a fresh fusion at each site that its text chooses; as it is, by its graph, where there is none.

    `check` may refuse what was found, before anything is grafted. Raises `LoadError`, `SpecError` and `ShapeError`.
    """
    said = _said(host)
    net = open_network(host, shapes).to(dtype)
    part, inputs = _part(net, said, shapes)
    survey = _known(host, part, inputs)
    check(survey.look(part, *modes))
    graft(part, inputs, fusion, said.selection, share=said.share, init=said.init, modes=modes, survey=survey)
    if said.output is not None:
        vars(net)["_given"] = read_literal(said.output)
        kind: Any = type(net)
        net.__class__ = _giving(kind)
    return net


def surveyed(host: HostSpec, shapes: Shapes, *modes: Mode) -> Survey:
    """The sites of the network, traced in these modes. Raises `LoadError` and `SpecError`."""
    net = open_network(host, shapes)
    part, inputs = _part(net, _said(host), shapes)
    return _known(host, part, inputs).look(part, *(modes or MODES))


def _said(host: HostSpec) -> Graft:
    assert host.graft is not None
    return host.graft


def _built(host: HostSpec, said: Graft, target: str) -> nn.Module:
    found = load(target)
    if isinstance(found, nn.Module) and said.attr is None:
        return copy.deepcopy(found)
    given = {key: read_literal(value) for key, value in host.own_options.items()}
    first: tuple[Any, ...] = ()
    if said.call is not None:
        value = read_literal(said.call)
        first = value if isinstance(value, tuple) else (value,)
    if said.classes is not None and (key := _class_key(target)):
        asked = given.setdefault(key, said.classes)
        if asked != said.classes:
            raise SpecError(f"{host} says {key}={asked}, and {said.classes} classes are asked for", hint="leave it out")
    hint = "call= gives what it is called with, attr= names what of it is the network, other keys are its own"
    return build_own(host.name, target, given, *first, offers={}, hint=hint, attribute=said.attr)


def _class_key(target: str) -> str | None:
    """The key by which what makes the network is told its classes, where its signature names one."""
    named, _ = parameters_of(target)
    return next((key for key in CLASS_KEYS if key in named), None)


def example(net: nn.Module, shapes: Shapes) -> tuple[torch.Tensor, ...]:
    """Inputs of these shapes, where the network is; what they hold means nothing."""
    like = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(()))
    return tuple(torch.zeros(shape, dtype=like.dtype, device=like.device) for shape in shapes)


def _part(net: nn.Module, said: Graft, shapes: Shapes) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """What is grafted, the network or a part of it, and what that is called with."""
    inputs = example(net, shapes)
    _check_count(net, inputs)
    if said.inside is None:
        return net, inputs
    try:
        part = net.get_submodule(said.inside)
    except AttributeError as error:
        names = ", ".join(name for name, _ in net.named_children())
        raise SpecError(f"{type(net).__name__} has no part {said.inside!r}", hint=f"its parts are {names}") from error
    met: list[tuple[torch.Tensor, ...]] = []

    def note(_module: nn.Module, given: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if not keywords and given and all(isinstance(x, torch.Tensor) for x in given):
            met.append(given)

    handle = part.register_forward_pre_hook(note, with_kwargs=True)
    try:
        given_by(net, inputs)
    except LoadError:
        if not met:
            raise
    finally:
        handle.remove()
    if not met:
        raise SpecError(
            f"the part {said.inside} is not called with tensors alone, so it cannot be traced by itself",
            hint="name a part that is, or one inside of it",
        )
    return part, tuple(x.detach() for x in met[0])


def _check_count(net: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
    """Refuse a forward that needs another number of inputs. Raises `SpecError`."""
    try:
        parameters = list(signature(net.forward).parameters.values())
    except (TypeError, ValueError):
        return
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p.name for p in by_place if p.default is Parameter.empty]
    most = len(inputs) if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(by_place)
    if not len(needed) <= len(inputs) <= most:
        raise SpecError(
            f"the forward of {type(net).__name__} takes {len(needed)} inputs ({', '.join(needed)}), and it would be "
            f"given {len(inputs)}",
            hint="tell their shapes, as --inputs 3x224x224,1x224x224; in the text of a host inputs=3x224x224+1x224x224",
        )


def _known(host: HostSpec, part: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Survey:
    """The survey of a network that is built alike, or a new one."""
    form = tuple((name, tensor.shape, tensor.dtype, tensor.device) for name, tensor in part.state_dict().items())
    made = tuple((key, value) for key, value in host.options if key not in (*SELECTION_KEYS, "share", "init"))
    key = (host.target, made, tuple((tuple(x.shape), x.dtype) for x in inputs), form)
    if key not in _surveys:
        while len(_surveys) >= MOST_SURVEYS:
            _surveys.pop(next(iter(_surveys)))
        _surveys[key] = Survey(inputs)
    return _surveys[key]


@cache
def _giving(kind: Any) -> Any:
    """The same class, whose forward gives one entry of what it gave."""

    def forward(self: nn.Module, *arguments: Any, **keywords: Any) -> Any:
        return entry_of(kind.forward(self, *arguments, **keywords), self.__dict__["_given"])

    return with_forward(kind, forward)
