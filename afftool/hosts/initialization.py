"""The paper's weight initialisations (Table 2), for the layers that are the host's own.

A fusion keeps the initialisation it was built with, so that a module of the user's own starts as its author meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import torch
from torch import nn

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
