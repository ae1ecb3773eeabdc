"""ResNet-20-b with a feature pyramid, for segmentation (paper, Table 2).

Long skip: X is the projected low-level map, Y the projected and upsampled high-level map. Maps are upsampled to the
low-level map's own size, not by a factor of two, so odd image sizes work.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.nn import functional

from afftool.fusion import FusionFactory
from afftool.hosts.placement import Placement, initialize
from afftool.hosts.resnet import WIDTHS, BasicBlock
from afftool.hosts.resnet import stages as build_stages

LEVELS = len(WIDTHS) - 1


def _project(channels_in: int, channels: int, kernel: int = 1) -> nn.Sequential:
    """Batch norm and ReLU, which the backbone leaves to whoever reads its maps, and a convolution."""
    return nn.Sequential(
        nn.BatchNorm2d(channels_in),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False),
    )


def _resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if x.shape[2:] == like.shape[2:]:
        return x
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


class Level(nn.Module):
    """One step down the pyramid: a low-level and a high-level map, projected, fused at the low one's size."""

    def __init__(self, low: int, high: int, channels: int, fuse: nn.Module) -> None:
        super().__init__()
        self.lateral = _project(low, channels)
        self.project = _project(high, channels)
        self.fuse = fuse

    def forward(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """`(N, low, H, W)` and `(N, high, h, w)` to `(N, channels, H, W)`."""
        # Projecting before upsampling gives the same map as after it, at a quarter of the cost: both are linear.
        x = self.lateral(low)
        fused: torch.Tensor = self.fuse(x, _resize(self.project(high), x))
        return fused


class PyramidNet(nn.Module):
    """Images `(N, 3, H, W)` to class logits per pixel `(N, classes, H, W)`, of any H and W."""

    def __init__(self, place: Placement, b: int, width: int, pyramid: int, stride: int, classes: int) -> None:
        super().__init__()
        widths = [w * width for w in WIDTHS]
        stem: list[nn.Module] = [
            nn.BatchNorm2d(3, affine=False),
            nn.Conv2d(3, widths[0], 3, stride=min(stride, 2), padding=1, bias=False),
        ]
        if stride == 4:
            stem += [nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)]
        self.stem = nn.Sequential(*stem)
        backbone = Placement(_never, (), len(WIDTHS))
        self.stage1, self.stage2, self.stage3 = build_stages(
            BasicBlock, backbone, b=b, channels_in=widths[0], widths=widths
        )
        self.level2 = Level(widths[1], widths[2], pyramid, place.at(2, pyramid))
        self.level1 = Level(widths[0], pyramid, pyramid, place.at(1, pyramid))
        self.smooth = _project(pyramid, pyramid, kernel=3)
        self.head = nn.Sequential(nn.BatchNorm2d(pyramid), nn.ReLU(inplace=True), nn.Conv2d(pyramid, classes, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Segment."""
        low = self.stage1(self.stem(image))
        middle = self.stage2(low)
        top = self.level1(low, self.level2(middle, self.stage3(middle)))
        return _resize(self.head(self.smooth(top)), image)


def build(
    fusion: FusionFactory,
    *,
    b: int = 3,
    width: int = 1,
    pyramid: int = 32,
    stride: int | str = 2,
    stages: Collection[int] = (1, 2),
    classes: int = 11,
) -> nn.Module:
    """Build the host with `b` blocks a stage of `width` x (16, 32, 64) channels and a pyramid of `pyramid` channels.

    Fuses where the maps of the low `stages` meet what comes from above; the backbone's own skips add. `stride` (1, 2
    or 4) is the stem's; logits are upsampled to the image. Kaiming initialisation, as in Table 2. Raises `SpecError`
    for a stage it does not have.
    """
    host = PyramidNet(Placement(fusion, stages, LEVELS), b, width, pyramid, int(stride), classes)
    initialize(host, "kaiming")
    return host


def _never(channels: int) -> nn.Module:
    raise AssertionError(f"the backbone does not fuse (asked for {channels} channels)")
