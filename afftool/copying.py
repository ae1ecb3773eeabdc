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


def sharing_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` with the same parameters and buffers. Raises whatever `copy.deepcopy` raises."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})


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


def move_to_meta(module: nn.Module) -> nn.Module:
    """Put `module` itself on the meta device, the tensors among its attributes too; their values are gone."""
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and not is_lazy(value):
                vars(part)[name] = torch.empty_like(value, device="meta")
    return module.to("meta")


def alike(one: nn.Module, other: nn.Module, *, values: bool) -> bool:
    """Whether two modules have parts of the same names and kinds, with tensors of the same names, shapes and kinds.

    With `values` their tensors hold the same too, and so do the numbers and texts among their attributes.
    """
    pairs = zip(one.named_modules(), other.named_modules(), strict=False)
    if len([*one.modules()]) != len([*other.modules()]) or any(_kind(a) != _kind(b) for a, b in pairs):
        return False
    for own, given in zip(one.modules(), other.modules(), strict=True):
        mine, theirs = _tensors(own), _tensors(given)
        if mine.keys() != theirs.keys() or any(_form(mine[name]) != _form(theirs[name]) for name in mine):
            return False
        if values and (_plain(own) != _plain(given) or not all(_equal(mine[name], theirs[name]) for name in mine)):
            return False
    return True


@torch.no_grad()
def take_values(module: nn.Module, given: nn.Module) -> nn.Module:
    """Give `module` the values of the tensors of one that is `alike`, but for those that it works out itself."""
    for own, other in zip(module.modules(), given.modules(), strict=True):
        theirs = _tensors(other)
        for name, tensor in _tensors(own).items():
            if tensor.grad_fn is None:
                tensor.copy_(theirs[name])
    return module


def _kind(named: tuple[str, nn.Module]) -> tuple[str, str, str]:
    """A part's name and class, by its name: a parametrized layer has a class of its own, made anew every time."""
    path, part = named
    return path, type(part).__module__, type(part).__qualname__


def _tensors(part: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of one part, in whatever way it has them."""
    held = {**vars(part), **part._buffers, **part._parameters}
    return {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}


def _form(tensor: torch.Tensor) -> tuple[object, ...]:
    strides = tensor.stride() if tensor.layout == torch.strided and not is_lazy(tensor) else None
    shape = None if is_lazy(tensor) else tensor.shape
    return shape, strides, tensor.dtype, tensor.device, tensor.requires_grad, type(tensor)


def _plain(part: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(part).items() if isinstance(value, bool | int | float | str)}


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of one form hold the same, NaN where the other has NaN included."""
    if is_lazy(a):
        return True
    a, b = (t.detach() if t.layout == torch.strided else t.detach().to_dense() for t in (a, b))
    return a.is_meta or torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


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
