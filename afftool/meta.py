"""Copies on the meta device: tensors with a shape and no memory."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def meta_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` whose tensors are on the meta device; nothing of their size is allocated.

    The module itself is only read. Raises whatever `copy.deepcopy` raises for a module it cannot copy.
    """
    plain = (value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor))
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers(), *plain):
        if not is_lazy(tensor):
            twin = torch.empty_like(tensor, device="meta")
            memo[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
    return copy.deepcopy(module, memo).to("meta")
