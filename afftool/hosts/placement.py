"""Where a host fuses, and how its own layers start.

A stage that was not chosen fuses by plain addition. The initialisations are the paper's (Table 2), and a fusion keeps
the one that it was built with, so that a module of the user's own starts as its author meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Literal

import torch
from torch import nn

from afftool.errors import ShapeError, SpecError
from afftool.fusion import FusionFactory


class Skip(nn.Module):
    """The skip connection of a block that does not fuse: `x + y`, two maps of one shape, no parameters."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Add the maps. Raises `ShapeError` rather than broadcast."""
        if x.shape != y.shape:
            raise ShapeError(f"feature maps differ in shape: {tuple(x.shape)} and {tuple(y.shape)}")
        return x + y


class Placement:
    """Gives every block of a host its fusion: a fresh one in the chosen stages (counted from 1), a `Skip` elsewhere.

    Raises `SpecError` if a chosen stage is none of the host's `count` stages.
    """

    def __init__(self, fusion: FusionFactory, stages: Collection[int], count: int) -> None:
        beyond = sorted(set(stages) - set(range(1, count + 1)))
        if beyond:
            raise SpecError(
                f"there is no stage {beyond[0]}: this host has stages 1 to {count}",
                hint=f"for example stages=1-{count}, stages={count}, or stages=none to fuse nowhere",
            )
        self._fusion = fusion
        self._stages = frozenset(stages)

    def at(self, stage: int, channels: int) -> nn.Module:
        """The fusion of one block: `(x, y)`, each `(N, channels, H, W)`, to a map of that shape."""
        return self._fusion(channels) if stage in self._stages else Skip()


Scheme = Literal["kaiming", "xavier"]

_FILL: dict[Scheme, Callable[[torch.Tensor], torch.Tensor]] = {
    "kaiming": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
    "xavier": nn.init.xavier_uniform_,
}


def initialize(host: nn.Module, scheme: Scheme) -> None:
    """Set the host's convolutions and linear layers by `scheme`, and their biases to 0.

    Batch norms keep PyTorch's own start (weight 1, bias 0). Fusions, the modules named `fuse`, are left alone.
    """
    for layer in _own_layers(host):
        _FILL[scheme](layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _own_layers(module: nn.Module) -> Iterator[nn.Conv2d | nn.Linear]:
    if isinstance(module, nn.Conv2d | nn.Linear):
        yield module
    for name, child in module.named_children():
        if name != "fuse":
            yield from _own_layers(child)
