"""What a gradient reaches in a network before it is trained: refused where nothing passes a fusion, told where part."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._pytree import tree_leaves

from afftool.errors import LoadError
from afftool.measure.cost.reach import Edge, edge_of, edges_reached
from afftool.measure.cost.reading import CUT_BY, input_names, none_get_one
from afftool.study.network import Network
from afftool.study.seeding import seeded
from afftool.words import some_of

SHOWN = 4
"""So many names are told, and of more how many there are."""


@dataclass
class _Call:
    """One call of a fusion: where its inputs hung in the graph before it, and what it returned."""

    wanted: list[Edge | None]
    outputs: list[Any] = field(default_factory=list)


def unreached(network: Network, images: Tensor) -> str | None:
    """What of a network no gradient reaches in a training step on a few images, in words; None if it reaches all.

    Nothing that is frozen on purpose is told. Raises `LoadError` where no gradient passes a fusion, or the network.
    """
    network.module.train()
    with seeded("gradients"), torch.enable_grad(), _calls(network) as calls:
        output = network.module(images)
    parts = [*_of_fusions(network, calls), *_of_host(network, output)]
    return f"{network.fusion} in {network.host}: {'; '.join(parts)}." if parts else None


def _of_fusions(network: Network, calls: dict[str, _Call]) -> Iterator[str]:
    inputs: dict[str, list[str]] = {}
    parameters: list[str] = []
    for place, call in calls.items():
        seen = edges_reached(call.outputs, {edge for edge in call.wanted if edge is not None})
        names = input_names(len(call.wanted))
        ignored = [n for n, edge in zip(names, call.wanted, strict=True) if edge is not None and edge not in seen]
        own = _trainable(network.fusions[place])
        dead = [f"{place}.{name}" for name, edge in own.items() if edge not in seen]
        asked = sum(edge is not None for edge in call.wanted)
        if (asked or own) and len(ignored) == asked and len(dead) == len(own):
            none_of = none_get_one(parameters=bool(own), inputs=bool(asked))
            raise LoadError(
                f"no gradient passes {network.fusion} in {network.host} (at {place}): {none_of}",
                hint=f"nothing before it would be trained through it. {CUT_BY}",
            )
        parameters += dead
        for name in ignored:
            inputs.setdefault(name, []).append(place)
    for name, places in inputs.items():
        where = some_of(places, SHOWN)
        yield f"no gradient passes to {name} (at {where}), so what makes it is not trained through the fusion"
    if parameters:
        named = some_of(parameters, SHOWN)
        yield f"the fusion's own parameters {named} get no gradient and stay as they were initialised"


def _of_host(network: Network, output: Any) -> Iterator[str]:
    if not any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(output)):
        raise LoadError(
            f"no gradient passes {network.host} with {network.fusion}: its output is cut from autograd", hint=CUT_BY
        )
    seen = edges_reached(tree_leaves(output), ())
    inside = {id(p) for fusion in network.fusions.values() for p in fusion.parameters()}
    own = _trainable(network.module, without=inside)
    dead = [name for name, edge in own.items() if edge not in seen]
    if dead:
        yield f"{len(dead)} of the host's own {len(own)} parameters get no gradient: {some_of(dead, SHOWN)}"


def _trainable(module: nn.Module, without: Collection[int] = ()) -> dict[str, Edge]:
    return {
        name: edge for name, p in module.named_parameters() if id(p) not in without and (edge := edge_of(p)) is not None
    }


@contextmanager
def _calls(network: Network) -> Iterator[dict[str, _Call]]:
    """The last call of each fusion, by its place; hooks on every module, for a scripted one takes none of its own."""
    places = {id(fusion): place for place, fusion in network.fusions.items()}
    calls: dict[str, _Call] = {}

    def before(module: nn.Module, inputs: Any) -> None:
        if (place := places.get(id(module))) is not None:
            given = [x for x in tree_leaves(inputs) if isinstance(x, Tensor)]
            calls[place] = _Call([edge_of(x) for x in given])

    def after(module: nn.Module, _inputs: Any, output: Any) -> None:
        if (place := places.get(id(module))) is not None:
            calls[place].outputs = tree_leaves(output)

    handles = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
