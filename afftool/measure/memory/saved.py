"""What autograd keeps between forward and backward, in bytes, by the submodule that kept it first.

Counted are the storages packed by `torch.autograd.graph.saved_tensors_hooks` that are still held when forward ends,
each once and whole (a saved view keeps all of its storage alive). Parameters and buffers are left out: they are alive
anyway. The inputs are counted: inside a network they are activations, and this module is why they cannot be freed.
Not seen is what bypasses those hooks: a Python number autograd keeps (8 bytes), attributes that a custom function puts
on its context; the parts of a peak (`causes.py`), found from the allocator, have them.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from afftool.measure.running import followed

ITSELF = ""
"""The path of the outermost module: what it keeps outside all of its submodules."""


class _Packed:
    """A saved tensor, detached because an output that holds itself would never be freed."""

    __slots__ = ("__weakref__", "keeper", "tensor")

    def __init__(self, tensor: torch.Tensor, keeper: str) -> None:
        self.tensor = tensor.detach()
        self.keeper = keeper


@dataclass
class SavedTensors:
    """What is held at the moment: ask after forward and before backward."""

    device: torch.device
    alive_anyway: frozenset[int]
    _packed: list[weakref.ref[_Packed]] = field(default_factory=list)
    _running: list[str] = field(default_factory=lambda: [ITSELF])

    def by_module(self) -> dict[str, int]:
        """Bytes by submodule, those of a submodule's own children not included; they add up to the total."""
        seen: set[int] = set()
        kept: dict[str, int] = {}
        for reference in self._packed:
            packed = reference()
            if packed is None:  # its graph was dropped during forward
                continue
            storage = packed.tensor.untyped_storage()
            address = storage.data_ptr()
            if packed.tensor.device != self.device or address in self.alive_anyway or address in seen:
                continue
            seen.add(address)
            kept[packed.keeper] = kept.get(packed.keeper, 0) + storage.nbytes()
        return {name: nbytes for name, nbytes in kept.items() if nbytes}

    def _pack(self, tensor: torch.Tensor) -> _Packed:
        packed = _Packed(tensor, self._running[-1])
        self._packed.append(weakref.ref(packed))
        return packed


@contextmanager
def watch_saved(module: nn.Module, device: torch.device) -> Iterator[SavedTensors]:
    """Watch the forward passes of `module` made in the `with` block. Its hooks are gone afterwards."""
    saved = SavedTensors(device, addresses((*module.parameters(), *module.buffers())))
    with (
        followed(dict(module.named_modules()), enter=saved._running.append, leave=lambda *_: _pop(saved._running)),
        torch.autograd.graph.saved_tensors_hooks(saved._pack, lambda packed: packed.tensor),
    ):
        yield saved


def saved_by_graph(leaves: Iterable[torch.Tensor], device: torch.device, alive_anyway: frozenset[int]) -> int | None:
    """Bytes that the graph behind `leaves`, the outputs of a forward pass, holds on to; None where it will not tell.

    For compiled code, on which hooks cannot be set: its saved tensors are those of the one function that autograd sees.
    Counted as by `watch_saved`.
    """
    waiting: list[Any] = [leaf.grad_fn for leaf in leaves]
    seen: set[Any] = set()
    storages: dict[int, int] = {}
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
        try:
            tensors = _held_by(node)
        except RuntimeError:  # freed, or changed in place: backward would fail as well
            return None
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if tensor.device == device and storage.data_ptr() not in alive_anyway:
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _held_by(node: Any) -> list[torch.Tensor]:
    """The tensors a node of the graph keeps: by autograd's names for its own, and whatever a function in Python has."""
    kept = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
    if hasattr(node, "saved_tensors"):
        kept += [node.saved_tensors, list(vars(node).values())]
    tensors = [leaf for leaf in tree_leaves(kept) if isinstance(leaf, torch.Tensor)]
    return [t for t in tensors if t.dim() or t.dtype not in (torch.float64, torch.int64)]  # not a number of Python's


def _pop(names: list[str]) -> None:
    names.pop()


def addresses(tensors: Iterable[torch.Tensor | None]) -> frozenset[int]:
    """Where the storages of `tensors` begin; empty ones and None have none."""
    found = (t.untyped_storage().data_ptr() for t in tensors if t is not None)
    return frozenset(address for address in found if address)


def storage_bytes(tensors: Iterable[torch.Tensor | None]) -> int:
    """The bytes of the storages of `tensors`, a shared one counted once."""
    storages = {s.data_ptr(): s.nbytes() for t in tensors if t is not None for s in (t.untyped_storage(),)}
    return sum(storages.values())
