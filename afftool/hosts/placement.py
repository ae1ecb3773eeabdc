"""Where a host fuses: in the stages that were chosen by the fusion under study, elsewhere by plain addition."""

from __future__ import annotations

from collections.abc import Collection

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
