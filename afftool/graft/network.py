"""A network with fusions at its sites: the user's own object, of its own class, with another forward.

Everything but the forward stays: parameters, their names and order, methods and attributes, the parts and their
classes. The fusions are its last child, `fusions`, by the numbers of their sites. Its parts are no longer called
themselves: their hooks see nothing, and a part that is put into eval mode alone is as the whole network is. What the
forward read of Python's is as it was when it was traced: rates of dropout, flags, precisions that it names.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from afftool.copying import sharing_copy
from afftool.errors import LoadError, ShapeError, SpecError
from afftool.fusion import FusionFactory
from afftool.graft.join import join
from afftool.graft.sites import Found, Left, find
from afftool.graft.surgery import Forward, function_of, put
from afftool.graft.trace import Mode, Trace, mode_of, trace
from afftool.own import with_forward
from afftool.spec.graft import Init, Selection
from afftool.spec.site import Site
from afftool.spec.text import show_size

MODES: tuple[Mode, Mode] = ("eval", "train")
_NAMES = ("fusions", "grafted_fusions")


@dataclass(eq=False)
class Survey:
    """What a network computes for some inputs, a graph a mode, each traced when it is first asked for.

    It keeps no weights: another network that is built alike can be traced, and grafted, by the same survey.
    """

    inputs: tuple[torch.Tensor, ...]
    traces: dict[Mode, Trace] = field(default_factory=dict)
    found: dict[Mode, dict[tuple[str, str, int], Found]] = field(default_factory=dict)
    left: tuple[Left, ...] = ()

    def look(self, net: nn.Module, *modes: Mode) -> Self:
        """Trace `net` in these modes, unless that was done. Raises `LoadError`."""
        for mode in modes:
            if mode in self.traces:
                continue
            self.traces[mode] = traced = trace(net, self.inputs, mode)
            found, left = find(traced)
            self.found[mode] = {one.site.key: one for one in found}
            self.left = self.left or tuple(left)
        return self

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site: those of the eval graph by their numbers there, then what training alone has."""
        sites = [one.site for one in self.found.get("eval", {}).values()]
        known = {site.key for site in sites}
        for one in self.found.get("train", {}).values():
            if one.site.key not in known:
                sites.append(replace(one.site, number=len(sites) + 1))
        return tuple(sites)

    def only(self, site: Site) -> Mode | None:
        """The mode that alone has this site; None where both have it, or one was not traced."""
        having = [mode for mode in self.traces if site.key in self.found[mode]]
        return having[0] if len(having) < len(self.traces) else None

    def chosen(self, selection: Selection) -> tuple[Site, ...]:
        """The sites that are meant. Raises `SpecError` where none is, or one stands in one mode alone."""
        sites = self.sites
        selection.check(sites)
        chosen = tuple(site for site in sites if selection.takes(site))
        if selection.at == ("none",) or selection.stages == ():
            return ()
        if not chosen:
            has = f"it has {len(sites)}" if sites else "it adds and concatenates no maps"
            raise SpecError(
                f"no site of the network is meant by {selection.words}: {has}", hint="`afftool graft` shows its sites"
            )
        for site in chosen:
            if mode := self.only(site):
                raise SpecError(
                    f"site {site.number} ({site.kind} in {site.where}, {site.line}) is met in {mode} "
                    "mode alone: what is trained there would not be what is run",
                    hint="choose others, by number or path",
                )
        return chosen


@dataclass(eq=False)
class Grafted:
    """How a grafted network runs: a function a mode, and what it takes. Shared by all copies of the network."""

    kind: type[nn.Module]
    survey: Survey
    names: Mapping[tuple[str, str, int], str]
    forwards: dict[Mode, Forward] = field(default_factory=dict)
    accepted: set[tuple[Mode, tuple[torch.Size, ...]]] = field(default_factory=set)

    def __deepcopy__(self, memo: object) -> Grafted:
        return self

    def run(self, net: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """One forward pass of `net`, as its own forward would make it. Raises `ShapeError` for another input."""
        mode = mode_of(net.training)
        if mode not in self.forwards:
            self.prepare(net, mode)
        traced = self.survey.traces[mode]
        if traced.constants and not hasattr(net, next(iter(traced.constants))):  # a copy of before this mode was traced
            _give_constants(net, traced)
        if keywords:
            arguments, keywords = self._by_place(net, arguments, keywords)
        given, structure = tree_flatten((arguments, dict(keywords)))
        if structure != traced.taken:
            raise ShapeError(
                f"{self.kind.__name__} was grafted for {len(traced.shapes)} tensors in their places, and is given "
                "something else",
                hint="give it what it was traced with",
            )
        self._check(traced, given)
        if traced.mode == "train" and not torch.compiler.is_compiling():
            self._check_modes(net, traced)
        return tree_unflatten(self.forwards[mode](net, *given), traced.given)

    def prepare(self, net: nn.Module, mode: Mode) -> None:
        """Make the function of one mode. Raises `LoadError`."""
        twin = net
        if mode not in self.survey.traces:
            twin = sharing_copy(net)
            twin.__class__ = self.kind
        self.survey.look(twin, mode)
        traced, found = self.survey.traces[mode], self.survey.found[mode]
        for key in self.names:
            if key not in found:
                raise LoadError(f"{key[1] or self.kind.__name__} joins no maps in {mode} mode, where a fusion was put")
        chosen = [found[key] for key in self.names]
        graph = put(traced, chosen, {one.site.number: self.names[one.site.key] for one in chosen})
        _give_constants(net, traced)
        self.forwards[mode] = function_of(graph, f"{self.kind.__name__} in {mode} mode")

    def _by_place(
        self, net: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Keywords in their places, as far as they follow on each other there."""
        bound = inspect.signature(self.kind.forward).bind(net, *arguments, **keywords)
        return bound.args[1:], bound.kwargs

    def _check_modes(self, net: nn.Module, traced: Trace) -> None:
        """Refuse a part that was put in another mode than it was traced in: its graph would not know."""
        for part, training in zip(net.modules(), traced.training, strict=False):  # the fusions come last
            if part.training != training:
                path = next(name for name, one in net.named_modules() if one is part)
                raise LoadError(
                    f"{path} is in {mode_of(part.training)} mode while {self.kind.__name__} is trained, "
                    f"and was traced in {mode_of(training)} mode: its graph goes on as it was traced",
                    hint=f"to freeze it, let {self.kind.__name__}.train() keep it in eval mode, before it is grafted",
                )

    def _check(self, traced: Trace, given: Sequence[torch.Tensor]) -> None:
        """Refuse sizes for which the graph does not hold."""
        if traced.fits is None:
            return
        if torch.compiler.is_compiling():
            traced.fits(*given)
            return
        key = (traced.mode, tuple(x.shape for x in given))
        if key in self.accepted:
            return
        try:
            traced.fits(*given)
        except AssertionError as error:
            shapes, made = (
                " and ".join(show_size(shape) for shape in one) for one in ([x.shape for x in given], traced.shapes)
            )
            resized = all(
                x.dim() == len(one) and x.shape[1:2] == one[1:2] for x, one in zip(given, traced.shapes, strict=True)
            )
            raise ShapeError(
                f"{self.kind.__name__} was traced with {made}, and what it does there does not hold for {shapes}: "
                f"{error}",
                hint="graft it at that size" if resized else "give it as many dimensions and channels",
            ) from error
        self.accepted.add(key)


def _give_constants(net: nn.Module, traced: Trace) -> None:
    """What the graph reads by name and the network does not have, in no state of it."""
    like = next(net.parameters(), None)
    for name, constant in traced.constants.items():
        if isinstance(constant, nn.Module):
            vars(net)[name] = constant
        elif name not in dict(net.named_buffers(recurse=False)):
            net.register_buffer(name, constant if like is None else constant.to(like.device), persistent=False)


def graft(
    net: nn.Module,
    inputs: Iterable[torch.Tensor],
    fusion: FusionFactory | None,
    selection: Selection | None = None,
    *,
    share: bool = False,
    init: Init = "paper",
    modes: Sequence[Mode] = MODES,
    survey: Survey | None = None,
) -> nn.Module:
    """Put fusions at the chosen sites of `net`, for `inputs` of these shapes, and give it back.

    `fusion(channels, **settings)` makes one. Every other parameter keeps its name and value; the new ones are those of
    the child `fusions`. With no fusion the network is run by its graph as it is. With `share`, sites in the same place
    of repeated blocks have one fusion. Raises `LoadError`, `SpecError` and `ShapeError`.
    """
    inputs = tuple(inputs)
    survey = (survey or Survey(tuple(x.detach() for x in inputs))).look(net, *modes)
    chosen = survey.chosen(selection or Selection()) if fusion is not None else ()
    child = next((name for name in _NAMES if not hasattr(net, name)), None)
    if child is None:
        raise LoadError(f"{type(net).__name__} has attributes {' and '.join(_NAMES)}, where its fusions would be put")
    seed = int(torch.randint(2**31, (), device="cpu"))  # drawn whatever is grafted, so that nothing after it differs
    fusions, names, shared = nn.ModuleDict(), {}, {}
    for site in chosen:
        assert fusion is not None
        twin = site.twin if share else site.number
        if twin not in shared:
            shared[twin] = str(site.number)
            fusions[shared[twin]] = join(site, fusion, init, seed)
        names[site.key] = f"{child}.{shared[twin]}"
    training = net.training
    grafted = Grafted(type(net), survey, names)
    if len(fusions):
        net.add_module(child, fusions)
    vars(net)["_grafted"] = grafted
    kind: Any = type(net)
    net.__class__ = with_forward(kind, _forward)
    for mode in modes:
        grafted.prepare(net, mode)
    return net.train(training)


def _forward(self: nn.Module, *arguments: Any, **keywords: Any) -> Any:
    """Run the graph instead."""
    grafted: Grafted = self.__dict__["_grafted"]
    return grafted.run(self, arguments, keywords)
