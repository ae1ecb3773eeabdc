"""Which parameters a gradient can reach: found from the autograd graph, so no value is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves


def reached_parameters(module: nn.Module, inputs: Sequence[Any]) -> set[str]:
    """Names of the parameters that a gradient of some output reaches in one forward pass, as the module is now.

    Works on meta tensors. Shared parameters go by their first name. The forward pass may change buffers: hand in
    a copy.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    with torch.enable_grad():
        outputs = module(*inputs)
    waiting: list[Any] = [leaf.grad_fn for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
    reached = {names[id(leaf)] for leaf in tree_leaves(outputs) if id(leaf) in names}
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if id(variable) in names:
            reached.add(names[id(variable)])
        waiting.extend(following for following, _ in node.next_functions)
    return reached
