"""The host that is none: the bare fusion."""

from __future__ import annotations

from torch import nn

from afftool.fusion import FusionFactory


def build(fusion: FusionFactory, *, channels: int = 64) -> nn.Module:
    """The fusion itself, of `channels` channels; the case's own, which no knob sets."""
    return fusion(channels)
