"""Fusions that `copy.deepcopy` cannot copy, or copies wrongly, as users write them; and some with lazy layers."""

from __future__ import annotations

import random
import sys
import threading
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

CHANNELS = 4


def conv(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 1)


class Fuses(nn.Module):
    """A convolution of each map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = conv(channels), conv(channels)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.a(x) + self.b(y)
        return out


class OldWeightNorm(Fuses):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(self.a)


class Pruned(Fuses):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        prune.l1_unstructured(self.b, "weight", 0.5)


class NotALeaf(Fuses):
    """Holds a tensor that it worked out of a parameter."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.first = self.a.weight * 2


class Locked(Fuses):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.lock, self.log = threading.Lock(), sys.stderr


class Closes(Fuses):
    """Calls its layers through a function, which a copy would share: its own layers would get no gradient."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.both = lambda x, y: self.a(x) + self.b(y)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.both(x, y)
        return out


class Lucky(Locked):
    """Starts from another generator than torch's, which no seed of ours reaches."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        with torch.no_grad():
            self.a.weight.fill_(random.SystemRandom().random())
            self.a.bias.fill_(1)  # type: ignore[union-attr]


class Once(Fuses):
    """Can be built a single time, but copied."""

    built = 0

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        Once.built += 1
        if Once.built > 1:
            raise RuntimeError("there can be only one")


class NeedsValues(Locked):
    """A constructor that looks at values, so that it cannot be built on the meta device."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.steps = torch.linspace(0, 1, channels).tolist()


class Lazy(nn.Module):
    """Two layers that do not know their widths, with a norm and random numbers between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.norm, self.excite = nn.LazyConv2d(3, 1), nn.LazyBatchNorm2d(), nn.LazyConv2d(channels, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.squeeze(torch.cat([x, y], 1)))
        out: torch.Tensor = self.excite(nn.functional.dropout(hidden, 0.5, self.training))
        return out


class LazyLinear(nn.Module):
    """Its width is that of the flattened map: a size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.LazyLinear(channels)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * self.fc((x + y).flatten(1))[:, :, None, None]


class LazyAside(Lazy):
    """One of its lazy layers, and a norm, are called in training alone."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.aside = nn.LazyBatchNorm2d()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = super().forward(x, y)
        return out + self.aside(y) if self.training else out


class NeverCalled(Lazy):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.extra = nn.LazyConv2d(channels, 3)


class Narrow(Lazy):
    """Cannot run on maps of one position."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(super().forward(nn.functional.max_pool2d(x, 2), y[..., ::2, ::2]), x.shape[2:])


class LazyNet(nn.Module):
    """A host with lazy layers of its own, around two fusions."""

    def __init__(self, fusion: Any, classes: int = 10) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.LazyConv2d(8, 3, stride=4), nn.LazyConv2d(8, 1), nn.LazyLinear(classes)
        self.first, self.second = fusion(8), fusion(8)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        x = self.first(x, self.branch(x))
        out: torch.Tensor = self.head(self.second(x, x.relu()).mean((2, 3)))
        return out
