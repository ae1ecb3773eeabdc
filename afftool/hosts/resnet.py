"""The CIFAR ResNet-20-b of the released code: pre-activation basic blocks in three stages (paper, Table 2).

Short skip: X is the shortcut, Y the learned residual. Nothing comes after the fusion, so that its output travels on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import nn

from afftool.fusion import FusionFactory
from afftool.hosts.placement import Placement, initialize

WIDTHS = (16, 32, 64)


def residual(channels_in: int, channels: int, stride: int, kernel: int = 3) -> nn.Sequential:
    """A residual branch: batch norm, ReLU and a convolution, twice; the first convolution has the stride."""
    return nn.Sequential(
        nn.BatchNorm2d(channels_in),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_in, channels, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False),
    )


def shortcut(channels_in: int, channels: int, stride: int) -> nn.Module:
    """Average pool and 1x1 convolution where the shape changes, else nothing."""
    if stride == 1 and channels_in == channels:
        return nn.Identity()
    return nn.Sequential(
        nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
        nn.Conv2d(channels_in, channels, 1, bias=False),
    )


class BasicBlock(nn.Module):
    """BN-ReLU-3x3 twice, fused with the shortcut: average pool and 1x1 where the shape changes, else the input.

    `(N, channels_in, H, W)` to `(N, channels, ceil(H / stride), ceil(W / stride))`.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, fuse: nn.Module) -> None:
        super().__init__()
        self.residual = residual(channels_in, channels, stride)
        self.shortcut = shortcut(channels_in, channels, stride)
        self.fuse = fuse

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block."""
        fused: torch.Tensor = self.fuse(self.shortcut(x), self.residual(x))
        return fused


BlockBuilder = Callable[[int, int, int, nn.Module], nn.Module]
"""A block from its channels in, channels out, stride and fusion, as `BasicBlock` takes them."""


def stages(
    block: BlockBuilder, place: Placement, *, b: int, channels_in: int, widths: Sequence[int]
) -> list[nn.Sequential]:
    """Stages of `b` blocks each; every stage but the first halves the size with its first block."""
    built = []
    for stage, channels in enumerate(widths, start=1):
        blocks = []
        for number in range(b):
            stride = 2 if stage > 1 and number == 0 else 1
            blocks.append(block(channels_in, channels, stride, place.at(stage, channels)))
            channels_in = channels
        built.append(nn.Sequential(*blocks))
    return built


class ResNet(nn.Module):
    """Images `(N, 3, H, W)` to class logits `(N, classes)`; the image is normalised by a batch norm without weights."""

    def __init__(self, block: BlockBuilder, place: Placement, b: int, width: int, classes: int) -> None:
        super().__init__()
        widths = [w * width for w in WIDTHS]
        self.stem = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, widths[0], 3, padding=1, bias=False))
        self.stage1, self.stage2, self.stage3 = stages(block, place, b=b, channels_in=widths[0], widths=widths)
        self.head = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(widths[-1], classes),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Classify."""
        logits: torch.Tensor = self.head(self.stage3(self.stage2(self.stage1(self.stem(image)))))
        return logits


def build(
    fusion: FusionFactory, *, b: int = 3, width: int = 1, stages: Collection[int] = (1, 2, 3), classes: int = 100
) -> nn.Module:
    """Build the host with `b` blocks a stage of `width` x (16, 32, 64) channels, fusing in `stages`.

    Kaiming initialisation, as in Table 2. Raises `SpecError` for a stage it does not have.
    """
    host = ResNet(BasicBlock, Placement(fusion, stages, len(WIDTHS)), b, width, classes)
    initialize(host, "kaiming")
    return host
