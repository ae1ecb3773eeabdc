"""Fusions that TorchScript runs: as a whole, as a part of a module, and as a function that a module calls."""

import torch
from torch import nn


class Gate(nn.Module):
    """x g + y (1 - g), g from a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        g = torch.sigmoid(self.norm(self.conv(x + y)))
        return g * x + (1 - g) * y


def scripted(channels: int) -> nn.Module:
    return torch.jit.script(Gate(channels))


def traced(channels: int) -> nn.Module:
    x = torch.randn(1, channels, 4, 4)
    return torch.jit.trace(Gate(channels).eval(), (x, x))


def frozen(channels: int) -> nn.Module:
    return torch.jit.freeze(torch.jit.script(Gate(channels).eval()))


@torch.jit.script
def relu_sum(x, y):
    return torch.relu(x) + y


class Around(nn.Module):
    """A convolution of Python's own before the gate."""

    def __init__(self, channels: int, gate: nn.Module) -> None:
        super().__init__()
        self.before = nn.Conv2d(channels, channels, 1)
        self.gate = gate

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return relu_sum(self.gate(self.before(x), y), y)


def holds_plain(channels: int) -> nn.Module:
    return Around(channels, Gate(channels))


def holds_scripted(channels: int) -> nn.Module:
    return Around(channels, scripted(channels))


def holds_traced(channels: int) -> nn.Module:
    return Around(channels, traced(channels))
