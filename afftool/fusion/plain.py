"""Fusions without attention: addition and concatenation (paper, Table 1, context-aware: none)."""

from __future__ import annotations

import torch
from torch import nn

from afftool.fusion.attention import pointwise, sum_maps
from afftool.fusion.guards import check_inputs
from afftool.spec import Grammar


class Addition(nn.Module):
    """`gain (X + Y + ...)`: maps `(N, channels, *S)` to their sum. No parameters."""

    def __init__(self, channels: int, grammar: Grammar) -> None:
        super().__init__()
        self.channels = channels
        self.grammar = grammar

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Add the maps."""
        check_inputs(inputs, self.channels, self.grammar, self.training)
        total = sum_maps(inputs)
        return total if self.grammar.gain == 1 else self.grammar.gain * total


class Concatenation(nn.Module):
    """`gain (W [X, Y, ...] + b)`: a 1x1 convolution from the concatenated maps back to `(N, channels, *S)`."""

    def __init__(self, channels: int, grammar: Grammar) -> None:
        super().__init__()
        self.channels = channels
        self.grammar = grammar
        self.conv = pointwise(grammar.ndim, channels * grammar.inputs, channels)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Concatenate the maps and project them back."""
        check_inputs(inputs, self.channels, self.grammar, self.training)
        fused: torch.Tensor = self.conv(torch.cat(inputs, dim=1))
        return fused if self.grammar.gain == 1 else self.grammar.gain * fused
