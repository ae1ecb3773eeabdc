"""Fusions that write into their inputs, as users write them, each beside one that computes the same and does not."""

from __future__ import annotations

import torch
from torch import nn


class Plain(nn.Module):
    """Writes into nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.fc(y.relu())
        return out


class Activates(Plain):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.fc(y.relu_())
        return out


class Doubling(Plain):
    """Its first input doubles at every call, and is what it returns."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x += self.fc(y)
        x *= 2
        return x


class Both(Plain):
    """Takes any number of maps and writes into all of them."""

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        for one in maps:
            one.mul_(0.5)
        out: torch.Tensor = maps[0] + self.fc(maps[1])
        return out


class PastAutograd(Plain):
    """Writes in a way that leaves no trace but the values."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y.data.add_(1)
        out: torch.Tensor = x + self.fc(y)
        return out


class Keeps(Plain):
    """Writes into its first input what is there already: no value changes, and a leaf would still be refused."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.mul_(1)
        out: torch.Tensor = x + self.fc(y)
        return out


class Squeezes(Plain):
    """Changes the shape of its first input, not its values."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.unsqueeze_(0)
        out: torch.Tensor = x[0] + self.fc(y)
        return out


class EditsInside(Plain):
    """Writes into what it made itself, as most modules do."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(y)
        return out.relu_().add_(x)


class Bare(nn.Module):
    """Nothing but two activations, one of them in place, and a product."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x.relu_() * y.sigmoid()


class Recorder(Plain):
    """Doubles its first input, and writes down the first value it was given in each call."""

    seen: list[float]

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.seen = []

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not x.is_meta:
            self.seen.append(float(x.detach().flatten()[0]))
        x.mul_(2)
        out: torch.Tensor = x + self.fc(y)
        return out


class Net(nn.Module):
    """A host whose fusions may write into its maps, which are its own."""

    def __init__(self, fusion, normalises: bool = False) -> None:
        super().__init__()
        self.stem, self.fuse, self.normalises = nn.Conv2d(3, 4, 3), fusion(4), normalises

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.normalises:
            image.sub_(0.5)
        x = self.stem(image)
        out: torch.Tensor = self.fuse(x, x.sigmoid()).mean((2, 3))
        return out
