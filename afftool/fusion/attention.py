"""Multi-scale channel attention: the branches that look at a map, and the ways to join what they see.

A branch is the paper's bottleneck `B(W2 delta(B(W1 .)))` (Section 3): on the map itself (local), on its global
average (global), or on a map pooled to k positions a side. Branches are attached to their owner under the
names of the released PyTorch port (`local_att`, `global_att`, and `local_att2`, ... for a second pass), so that its
checkpoints load.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from afftool.fusion.guards import check_inputs
from afftool.spec import Grammar, Scale

_CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_BATCH_NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL: dict[int, type[nn.Module]] = {
    1: nn.AdaptiveAvgPool1d,
    2: nn.AdaptiveAvgPool2d,
    3: nn.AdaptiveAvgPool3d,
}
_ACTIVATION: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def pointwise(ndim: int, channels_in: int, channels_out: int) -> nn.Module:
    """A 1x1 convolution with bias, as the released code has it everywhere."""
    return _CONV[ndim](channels_in, channels_out, kernel_size=1)


def _norm(grammar: Grammar, channels: int) -> nn.Module:
    if grammar.norm == "batch":
        return _BATCH_NORM[grammar.ndim](channels)
    return nn.GroupNorm(1, channels) if grammar.norm == "layer" else nn.Identity()


def branch(grammar: Grammar, scale: Scale, channels_in: int, inner: int, channels_out: int) -> nn.Sequential:
    """One attention branch: `(N, channels_in, *S)` to logits `(N, channels_out, *S')`.

    `S'` is `S` for local, one position for global, k a side for a pooled scale.
    """
    pool = [] if scale == "local" else [_POOL[grammar.ndim](1 if scale == "global" else scale)]
    return nn.Sequential(
        *pool,
        pointwise(grammar.ndim, channels_in, inner),
        _norm(grammar, inner),
        _ACTIVATION[grammar.activation](inplace=True),
        pointwise(grammar.ndim, inner, channels_out),
        _norm(grammar, channels_out),
    )


def sum_maps(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Their sum, left to right."""
    total = maps[0]
    for x in maps[1:]:
        total = total + x
    return total


@dataclass(frozen=True)
class AttentionPass:
    """One pass of attention: which of its owner's modules look at the context, and which joins them."""

    branches: tuple[str, ...]
    join: str
    joiner: str | None = None

    def logits(self, owner: nn.Module, context: torch.Tensor) -> torch.Tensor:
        """Attention logits of `context`: `(N, channels_out, *S)`, or one position a side if every scale is global."""
        contexts = []
        for name in self.branches:
            seen = getattr(owner, name)(context)
            if name.startswith("pool"):
                seen = F.interpolate(seen, size=context.shape[2:], mode="nearest")
            contexts.append(seen)
        if self.joiner is not None:
            return cast(torch.Tensor, getattr(owner, self.joiner)(*contexts))
        total = sum_maps(contexts)
        return total / len(contexts) if self.join == "half" else total


def attach_pass(
    owner: nn.Module, grammar: Grammar, channels: int, channels_in: int, channels_out: int, number: int = 1
) -> AttentionPass:
    """Attach the branches of pass `number` (from 1) to `owner` and return the pass that calls them.

    The bottleneck width comes from `channels`. With `share_global`, later passes call the first pass's global branch
    and carry one of their own that nothing calls, as the released iAFF does.
    """
    inner = grammar.inner_channels(channels)
    suffix = "" if number == 1 else str(number)
    names: list[str] = []
    for scale in grammar.scales:
        stem = f"pool{scale}_att" if isinstance(scale, int) else f"{scale}_att"
        twin = sum(name.startswith(stem) for name in names)
        name = f"{stem}{'_' + chr(ord('a') + twin) if twin else ''}{suffix}"
        owner.add_module(name, branch(grammar, scale, channels_in, inner, channels_out))
        names.append(name)
    if number > 1 and grammar.share_global:
        names[grammar.scales.index("global")] = "global_att"
    if grammar.join in _JOINERS:
        joiner = f"join_att{suffix}"
        owner.add_module(joiner, _JOINERS[grammar.join](grammar, channels_out))
        return AttentionPass(tuple(names), grammar.join, joiner)
    return AttentionPass(tuple(names), grammar.join)


class ConcatJoin(nn.Module):
    """Contexts side by side, then a 1x1 convolution (concat-AFF, paper Table 6)."""

    def __init__(self, grammar: Grammar, channels: int) -> None:
        super().__init__()
        self.conv = pointwise(grammar.ndim, channels * len(grammar.scales), channels)

    def forward(self, *contexts: torch.Tensor) -> torch.Tensor:
        """Join contexts `(N, C, *S)` or `(N, C, 1, ...)` into `(N, C, *S)`."""
        same_size = torch.broadcast_tensors(*contexts)  # type: ignore[no-untyped-call]
        return cast(torch.Tensor, self.conv(torch.cat(same_size, dim=1)))


class RecursiveJoin(nn.Module):
    """Two contexts soft-selected by an MS-CAM on their sum (recursive-AFF, paper Table 6)."""

    def __init__(self, grammar: Grammar, channels: int) -> None:
        super().__init__()
        inner = dataclasses.replace(grammar, scales=("local", "global"), join="add", iterations=1, share_global=False)
        self.attention = attach_pass(self, inner, channels, channels, channels)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Select between `a` and `b`, each `(N, C, *S)` or `(N, C, 1, ...)`."""
        weight = torch.sigmoid(self.attention.logits(self, a + b))
        return weight * a + (1 - weight) * b


_JOINERS: dict[str, Callable[[Grammar, int], nn.Module]] = {"concat": ConcatJoin, "recursive": RecursiveJoin}


class MSCAM(nn.Module):
    """Multi-scale channel attention module: `X -> X (x) sigma(L(X) (+) g(X))` (paper, Section 3.2).

    Input and output `(N, channels, *S)` with `ndim` spatial dimensions. Parameter names are those of the released
    `MS_CAM`. Raises `SpecError` if `channels < reduction`, `ShapeError` and `BatchStatisticsError` as every fusion.
    """

    def __init__(self, channels: int, reduction: int = 4, ndim: int = 2) -> None:
        super().__init__()
        # One map goes in; the grammar's two are what a fusion has.
        self.grammar = Grammar(reduction=reduction, ndim=ndim)
        self.channels = channels
        self._pass = attach_pass(self, self.grammar, channels, channels, channels)

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        """The weights `M(X) = sigma(L(X) (+) g(X))`, of the shape of `x`, each in (0, 1)."""
        check_inputs((x, x), self.channels, self.grammar, self.training)
        return torch.sigmoid(self._pass.logits(self, x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Refine `x` by its own attention."""
        return x * self.attention(x)
