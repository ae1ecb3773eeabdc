"""Fusions with one fault each, as users write them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from afftool.inspect.subject import Subject, subject_of
from afftool.spec import FusionSpec


def planted(name: str, channels: int = 8) -> Subject:
    """The class of that name in this file, as something to inspect."""
    kind = globals()[name]

    def make() -> nn.Module:
        try:
            module: nn.Module = kind(channels)
        except TypeError:
            module = kind()
        return module

    return Subject(name=name, make=make, channels=channels, size=(6, 5), batch=8)


def ours(text: str, **settings: Any) -> Subject:
    """A fusion of our own, small, as something to inspect."""
    fusion = FusionSpec.parse(text)
    return subject_of(fusion, **{"channels": 16, "size": (6,) * fusion.ndim, "batch": 8} | settings)


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


class Remembers(Broadcasts):
    """Counts its calls in Python, and multiplies by the count."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.calls * x + y


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


class Slammed(Broadcasts):
    """A modulation whose gate is open all the way, so that it is a sum and learns nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(100 * self.net(x) + 800) + y


class Steep(Slammed):
    """A modulation whose gate of each position is mostly shut or open."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(12 * self.net[1](y)) + y


class BreaksInTraining(Broadcasts):
    """Looks at a value in Python, in training only."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y + x if self.training and float(x.sum()) > 0 else x + y


class Disabled(Broadcasts):
    """Kept from the compiler."""

    @torch.compiler.disable
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class InfiniteInTraining(Broadcasts):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y) / (0 if self.training else 1)


class FailsInTraining(Broadcasts):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise NotImplementedError("later")
        return x + y


class Detached(Broadcasts):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y).detach()


class DividesByDifference(Broadcasts):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x + y) / (x - y).abs().mean(dim=(1, 2, 3), keepdim=True)


class RootOfZero(Broadcasts):
    """The root of what is 0, which is fine until its gradient is taken."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = self.weight * (x + y)
        return z + (z - z).sqrt()


class Raises(Broadcasts):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise ValueError("nope")


class Exits(Broadcasts):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise SystemExit(3)


class ExitsOnOne(Broadcasts):
    """Exits where it does not like a shape."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.shape != y.shape or len(x) == 1:
            raise SystemExit("shapes differ")
        return x + y


class Lazy(Broadcasts):
    """Layers that learn their width from the first map."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LazyConv2d(4, 1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.LazyConv2d(8, 1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + self.net(y)


class Normed(Broadcasts):
    """The old weight norm, whose weight is no leaf, so that the module cannot be copied."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.utils.weight_norm(nn.Conv2d(channels, channels, 1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + self.net(y)
