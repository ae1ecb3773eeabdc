"""Inception-ResNet-20-b: the CIFAR ResNet-20-b whose residual is a 3x3 and a 5x5 branch, fused (paper, Table 2).

Same layer: X is the 3x3 branch, Y the 5x5 branch, with the larger receptive field. Their fusion is added to the
shortcut. The paper names the branches and the host but not their inside; here each is the ResNet's residual branch
with its own kernel size, so that the depth stays 6b + 2.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from afftool.fusion import FusionFactory
from afftool.hosts.placement import Placement, Skip, initialize
from afftool.hosts.resnet import WIDTHS, ResNet, residual, shortcut


class InceptionBlock(nn.Module):
    """A 3x3 and a 5x5 residual branch, fused, plus the shortcut.

    `(N, channels_in, H, W)` to `(N, channels, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, fuse: nn.Module) -> None:
        super().__init__()
        self.branch3 = residual(channels_in, channels, stride, kernel=3)
        self.branch5 = residual(channels_in, channels, stride, kernel=5)
        self.shortcut = shortcut(channels_in, channels, stride)
        self.fuse = fuse
        self.skip = Skip()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block."""
        summed: torch.Tensor = self.skip(self.shortcut(x), self.fuse(self.branch3(x), self.branch5(x)))
        return summed


def build(
    fusion: FusionFactory, *, b: int = 3, width: int = 1, stages: Collection[int] = (1, 2, 3), classes: int = 100
) -> nn.Module:
    """Build the host with `b` blocks a stage of `width` x (16, 32, 64) channels, fusing in `stages`.

    Kaiming initialisation, as in Table 2. Raises `SpecError` for a stage it does not have.
    """
    host = ResNet(InceptionBlock, Placement(fusion, stages, len(WIDTHS)), b, width, classes)
    initialize(host, "kaiming")
    return host
