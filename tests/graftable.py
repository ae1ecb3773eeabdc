"""Little networks of a user's own that know nothing of fusions, for the studies that graft some into them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block with a projection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.branch(x))


class Net(nn.Module):
    """Three stages of one addition each, and a head of seven classes that no key of its own changes."""

    def __init__(self, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        widths = (width, width, 2 * width, 2 * width)
        self.stages = nn.Sequential(*(Block(widths[i], widths[i + 1], 2 if i else 1) for i in range(3)))
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(2 * width, 7)

    def features(self, image: Tensor) -> Tensor:
        return self.drop(self.stages(self.stem(image)).mean((2, 3)))

    def forward(self, image: Tensor) -> Tensor:
        return self.fc(self.features(image))


class Keyed(Net):
    """It is told its classes by a key of its own."""

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__()
        self.fc = nn.Linear(16, num_classes)


class Dict(Net):
    """Its output is a dictionary."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        features = self.features(image)
        return {"features": features, "logits": self.fc(features)}


class KeyedDict(Keyed):
    """Its output is a dictionary, whose classes a key of its own tells."""

    forward = Dict.forward


class Flat(Net):
    """Its head takes maps of one size, that of images of 8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 7)

    def features(self, image: Tensor) -> Tensor:
        return self.stages(self.stem(image)).flatten(1)


class Headless(Net):
    """No layer of it gives its classes alone."""

    def forward(self, image: Tensor) -> Tensor:
        logits = self.fc(self.features(image))
        return torch.cat([logits, logits], dim=1)


class Detector(Net):
    """Its output is a list of maps of several sizes, as a detector's is."""

    def forward(self, image: Tensor) -> list[Tensor]:  # type: ignore[override]
        small = self.stages(self.stem(image))
        return [small, small[:, :, ::2, ::2]]


class Segmenter(nn.Module):
    """A U-Net of one level: an addition below, a concatenation above, classes a pixel."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.below = Block(8, 8, 2)
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        deep = nn.functional.interpolate(self.below(x), scale_factor=2.0)
        return self.head(torch.cat([x, deep], dim=1))
