"""ImageNet ResNet-50 and ResNeXt-50-32x4d as the released code has them (paper, Table 5).

Deep stem, stride in the 3x3, average-pool shortcuts, and fusion only in the chosen stages (3 and 4 in the paper).
Short skip: X is the shortcut, Y the learned residual; a ReLU follows, as in every post-activation ResNet.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from afftool.fusion import FusionFactory
from afftool.hosts.placement import Placement, initialize

BLOCKS = (3, 4, 6, 3)
PLANES = (64, 128, 256, 512)
EXPANSION = 4


def _conv_norm(channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size (but for its stride), and the batch norm after it."""
    return [
        nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    ]


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride and the groups) and 1x1 convolutions, fused with the shortcut, then ReLU.

    `(N, channels_in, H, W)` to `(N, channels, ceil(H / stride), ceil(W / stride))`; `inner` is the 3x3's width.
    """

    def __init__(self, channels_in: int, inner: int, channels: int, stride: int, groups: int, fuse: nn.Module) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_norm(channels_in, inner, 1),
            nn.ReLU(inplace=True),
            *_conv_norm(inner, inner, 3, stride, groups),
            nn.ReLU(inplace=True),
            *_conv_norm(inner, channels, 1),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            # Where the size stays there is nothing to pool: the released code's pool of 1 is the identity.
            pool = [nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)] if stride != 1 else []
            self.shortcut = nn.Sequential(*pool, *_conv_norm(channels_in, channels, 1))
        self.fuse = fuse

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """One block."""
        return torch.relu(self.fuse(self.shortcut(x), self.residual(x)))


def _stem(stem: str, width: int) -> nn.Sequential:
    """`(N, 3, H, W)` to a quarter of the size: one 7x7 (`plain`, 64 channels) or three 3x3 (`deep`, 2 x width)."""
    if stem == "plain":
        layers = _conv_norm(3, 64, 7, stride=2)
    else:
        layers = [
            *_conv_norm(3, width, 3, stride=2),
            nn.ReLU(inplace=True),
            *_conv_norm(width, width, 3),
            nn.ReLU(inplace=True),
            *_conv_norm(width, 2 * width, 3),
        ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1))


class ResNet50(nn.Module):
    """Images `(N, 3, H, W)` to class logits `(N, classes)`; `inner` is the width of the first stage's 3x3."""

    def __init__(
        self, place: Placement, stem: nn.Sequential, stem_channels: int, inner: int, groups: int, classes: int
    ):
        super().__init__()
        self.stem = stem
        channels_in = stem_channels
        for stage, (count, planes) in enumerate(zip(BLOCKS, PLANES, strict=True), start=1):
            channels = planes * EXPANSION
            blocks = []
            for number in range(count):
                stride = 2 if stage > 1 and number == 0 else 1
                width = inner * planes // PLANES[0]
                blocks.append(Bottleneck(channels_in, width, channels, stride, groups, place.at(stage, channels)))
                channels_in = channels
            self.add_module(f"stage{stage}", nn.Sequential(*blocks))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels_in, classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Classify."""
        x: torch.Tensor = self.stem(image)
        for stage in range(1, len(BLOCKS) + 1):
            x = self.get_submodule(f"stage{stage}")(x)
        logits: torch.Tensor = self.head(x)
        return logits


def build(
    fusion: FusionFactory, *, stages: Collection[int] = (3, 4), stem: str = "deep", classes: int = 1000
) -> nn.Module:
    """Build ResNet-50, fusing in `stages`; a deep stem is 32-32-64 wide.

    Kaiming initialisation, as in Table 2. Raises `SpecError` for a stage it does not have.
    """
    place = Placement(fusion, stages, len(BLOCKS))
    host = ResNet50(place, _stem(stem, 32), stem_channels=64, inner=64, groups=1, classes=classes)
    initialize(host, "kaiming")
    return host


def build_resnext(
    fusion: FusionFactory, *, stages: Collection[int] = (3, 4), stem: str = "deep", classes: int = 1000
) -> nn.Module:
    """Build ResNeXt-50 with 32 groups of 4 channels, fusing in `stages`; a deep stem is 64-64-128 wide.

    Xavier initialisation, as Table 2 has it for ResNeXt. Raises `SpecError` for a stage it does not have.
    """
    place = Placement(fusion, stages, len(BLOCKS))
    stem_channels = 64 if stem == "plain" else 128
    host = ResNet50(place, _stem(stem, 64), stem_channels, inner=128, groups=32, classes=classes)
    initialize(host, "xavier")
    return host
