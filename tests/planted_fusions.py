"""Fusions with one fault each, as users write them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Plain(nn.Module):
    """A soft selection without a fault, but of nobody's grammar: three-layer gate, guarded, no batch statistics."""

    scale = 1.0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(2 * channels, 4, 1)
        self.excite = nn.Conv2d(4, channels, 1)

    def gate(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(4 * self.excite(torch.relu(self.squeeze(torch.cat([x, y], 1)))))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.shape != y.shape:
            raise ValueError("shapes differ")
        weight = self.gate(x, y)
        return self.scale * (x * weight + y * (1 - weight))


class Tripled(Plain):
    scale = 3.0


class Dead(Plain):
    """A branch that is built, saved, counted and never called, and a scale that is multiplied by 0."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.extra = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1))
        self.muted = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return super().forward(x, y) + 0 * self.muted * x


class ZeroInit(Plain):
    """A last layer that starts at 0, so that the layers before it have no gradient in the first step only."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        nn.init.zeros_(self.excite.weight)


class Deaf(Plain):
    """y is overwritten."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x, x)


class Broadcasts(nn.Module):
    """Adds whatever it gets."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Counts(Broadcasts):
    """Counts its calls in a buffer, in eval too."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + y


class InPlace(Broadcasts):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.mul_(0.5) + y


class Restless(Broadcasts):
    """Dropout that forgets to look at self.training."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, training=True) + y


class Leaky(Broadcasts):
    """Normalises over the batch, in eval too."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y) / (x + y).std()


class Stuck(Plain):
    """A gate that is saturated from the start."""

    def gate(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(60 * torch.cat([x, y], 1)[:, : x.shape[1]])


class Constant(Plain):
    """A gate of 0.3 whatever comes in."""

    def gate(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, 0.3)


class Breaks(Broadcasts):
    """Looks at a value in Python."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y if float(x.sum()) > 0 else y + x


class FixedBatch(Broadcasts):
    """Only batches of the example's size."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y).reshape(8, *x.shape[1:])


class Explodes(Broadcasts):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return 4 * x + y


class Shrinks(nn.Module):
    """Gives a map of another size."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y)[..., ::2]


class Infinite(Broadcasts):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y) / (x - x)


class SingleOnly(Plain):
    """A constant in float32, so that it runs in no other precision."""

    def gate(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        half = torch.full((x.shape[1], x.shape[1], 1, 1), 0.1)
        return torch.sigmoid(nn.functional.conv2d(x + y, half))


class TwoOutputs(Broadcasts):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return x + y, y


class BatchNormed(Broadcasts):
    """Batch norm after global pooling, as everyone writes it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.shape != y.shape:
            raise ValueError("shapes differ")
        weight = torch.sigmoid(self.net(x + y))
        return x * weight + y * (1 - weight)
