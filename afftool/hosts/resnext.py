"""CIFAR ResNeXt-38/47-32x4d as the released code has it: three stages of grouped, post-activation bottlenecks.

9b + 2 layers: 38 with b=4, 47 with b=5. Short skip: X is the shortcut, Y the learned residual; a ReLU follows.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from afftool.fusion import FusionFactory
from afftool.hosts.placement import Placement, initialize
from afftool.hosts.resnet import stages as build_stages
from afftool.hosts.resnet50 import Bottleneck

STEM = 64
WIDTHS = (256, 512, 1024)


class CifarResNeXt(nn.Module):
    """Images `(N, 3, H, W)` to class logits `(N, classes)`."""

    def __init__(self, place: Placement, b: int, cardinality: int, base: int, classes: int) -> None:
        super().__init__()

        def block(channels_in: int, channels: int, stride: int, fuse: nn.Module) -> nn.Module:
            inner = cardinality * base * (channels // WIDTHS[0])
            return Bottleneck(channels_in, inner, channels, stride, cardinality, fuse)

        self.stem = nn.Sequential(
            nn.Conv2d(3, STEM, 3, padding=1, bias=False), nn.BatchNorm2d(STEM), nn.ReLU(inplace=True)
        )
        self.stage1, self.stage2, self.stage3 = build_stages(block, place, b=b, channels_in=STEM, widths=WIDTHS)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Classify."""
        logits: torch.Tensor = self.head(self.stage3(self.stage2(self.stage1(self.stem(image)))))
        return logits


def build(
    fusion: FusionFactory,
    *,
    b: int = 4,
    cardinality: int = 32,
    base: int = 4,
    stages: Collection[int] = (1, 2, 3),
    classes: int = 100,
) -> nn.Module:
    """Build the host with `b` blocks a stage, whose 3x3 has `cardinality` groups of `base` channels in stage 1.

    Xavier initialisation, as Table 2 has it for ResNeXt. Raises `SpecError` for a stage it does not have.
    """
    host = CifarResNeXt(Placement(fusion, stages, len(WIDTHS)), b, cardinality, base, classes)
    initialize(host, "xavier")
    return host
