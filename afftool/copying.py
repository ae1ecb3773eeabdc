"""Copies of a module: real ones, and on the meta device, where tensors have a shape and no memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

Twin = Callable[[torch.Tensor], torch.Tensor]


def real_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` that shares nothing with it. Raises whatever `copy.deepcopy` raises."""
    return copy.deepcopy(module, _scripted_twins(module, lambda tensor: tensor.detach().clone()))


def meta_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` whose tensors are on the meta device; nothing of their size stays allocated.

    The module itself is only read. Raises whatever `copy.deepcopy` raises for a module it cannot copy.
    """

    def on_meta(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(tensor, device="meta")

    memo = _scripted_twins(module, on_meta)
    plain = (value for part in module.modules() for value in vars(part).values() if isinstance(value, torch.Tensor))
    for tensor in (*module.parameters(), *module.buffers(), *plain):
        if not is_lazy(tensor):
            memo[id(tensor)] = _like(tensor, on_meta)
    return copy.deepcopy(module, memo).to("meta")


def _like(tensor: torch.Tensor, twin: Twin) -> torch.Tensor:
    made = twin(tensor)
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


def _scripted_twins(module: nn.Module, twin: Twin) -> dict[int, Any]:
    """Copies of the scripted and traced modules in `module`, by their identities: a memo for `copy.deepcopy`.

    TorchScript's own copy of a parameter is no parameter but a differentiable clone: gradients would run on into the
    module that was copied. So each tensor is put there again, one that was shared as one.
    """
    memo: dict[int, Any] = {}
    for script in module.modules():
        if not isinstance(script, torch.jit.ScriptModule) or id(script) in memo:
            continue
        with torch.no_grad():
            copied = copy.deepcopy(script)
        tensors: dict[int, torch.Tensor] = {}
        pairs = zip(
            script.named_modules(remove_duplicate=False), copied.named_modules(remove_duplicate=False), strict=True
        )
        for (_, own), (_, other) in pairs:
            memo[id(own)] = other
            for name, tensor in (*own._parameters.items(), *own._buffers.items()):
                if tensor is not None:
                    other._c.setattr(name, tensors.setdefault(id(tensor), _like(tensor, twin)))
    return memo
