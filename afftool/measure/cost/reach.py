"""What a gradient reaches, found from autograd's graph: no value is needed, and nothing is run backward."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from afftool.inputs import copy_in_network
from afftool.measure.cost.reading import Reach

Edge = tuple[Any, int]
"""A node of autograd's graph, and which of its outputs."""


def edge_of(tensor: torch.Tensor) -> Edge | None:
    """Where a tensor hangs in the graph now, before anything writes into it; None for one without a gradient."""
    return torch.autograd.graph.get_gradient_edge(tensor)[:2] if tensor.requires_grad else None


def edges_reached(outputs: Iterable[Any], ends: Collection[Edge]) -> set[Edge]:
    """The edges that a gradient of some tensor in `outputs` passes, leaves among them; it goes no further at `ends`."""
    waiting = [edge for x in outputs if isinstance(x, torch.Tensor) and (edge := edge_of(x)) is not None]
    seen: set[Edge] = set()
    while waiting:
        edge = waiting.pop()
        if edge[0] is None or edge in seen:
            continue
        seen.add(edge)
        if edge not in ends:
            waiting.extend(edge[0].next_functions)
    return seen


def reach(module: nn.Module, inputs: Sequence[Any], *, input_gradients: bool = True) -> Reach:
    """What a gradient of some output reaches in one forward pass, as the module is now.

    Works on meta tensors. With `input_gradients` inputs are given as a network gives them, with a gradient and no
    leaves; without, nothing is known of them and they pass for reached. A shared parameter goes by its first name. The
    forward pass may change buffers and inputs: hand in copies.
    """
    with torch.enable_grad():
        given = [_given(x) if input_gradients else x for x in inputs]
        wanted = [edge_of(x) if isinstance(x, torch.Tensor) else None for x in given]
        outputs = tree_leaves(module(*given))
        parameters = {name: edge for name, p in module.named_parameters() if (edge := edge_of(p)) is not None}
        seen = edges_reached(outputs, {edge for edge in wanted if edge is not None})
    return Reach(
        parameters=frozenset(name for name, edge in parameters.items() if edge in seen),
        trainable=frozenset(parameters),
        inputs=tuple(edge is None or edge in seen for edge in wanted),
        connected=any(isinstance(x, torch.Tensor) and x.requires_grad for x in outputs),
    )


def _given(x: Any) -> Any:
    if not isinstance(x, torch.Tensor) or not (x.is_floating_point() or x.is_complex()):
        return x
    return copy_in_network(x.detach())
