"""What stands at a site: the fusion, and around it the least that makes its maps fit.

At an addition that is the fusion alone. A concatenation hands on more channels than a fusion gives: a 1x1 convolution
widens what was fused to them, and one before it widens a map that is narrower than the widest. A new fusion at an
addition may start as that addition (`start_neutral`).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from afftool.errors import AfftoolError, SpecError
from afftool.fusion import FusionFactory
from afftool.fusion.attention import pointwise
from afftool.fusion.gated import GatedFusion
from afftool.fusion.plain import Addition, Concatenation
from afftool.graft.fitting import check_shape, without
from afftool.spec.fusion import settings_of_maps
from afftool.spec.graft import Init
from afftool.spec.site import Site


class Joint(nn.Module):
    """Maps of a concatenation `(N, channels[i], *S)` to one of all their channels: projected, fused, widened."""

    def __init__(self, fusion: nn.Module, channels: tuple[int, ...], ndim: int) -> None:
        super().__init__()
        width = max(channels)
        self.project = nn.ModuleList(nn.Identity() if c == width else pointwise(ndim, c, width) for c in channels)
        self.fusion = fusion
        self.expand = pointwise(ndim, width, sum(channels))

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        """Fuse the maps, the oldest first."""
        fused = self.fusion(*(project(x) for project, x in zip(self.project, maps, strict=True)))
        widened: torch.Tensor = self.expand(fused)
        return widened


def join(site: Site, fusion: FusionFactory, init: Init, seed: int) -> nn.Module:
    """The module that is called with the site's maps, the skip first, and gives what its network expects there.

    Adapters are drawn from a generator of their own, `seed` and the site's number. Raises what the factory raises,
    `SpecError` where `init` cannot be, and `ShapeError` for a module that gives another shape.
    """
    ndim = len(site.size)
    try:
        made = fusion(site.width, **settings_of_maps(len(site.channels), ndim))
    except AfftoolError as error:
        raise type(error)(
            f"at site {site.number} ({site.kind} in {site.where}): {error.message}",
            hint=f"{f'{error.hint}; ' if error.hint else ''}or {without(site)}",
        ) from error
    if init == "neutral":
        if site.kind == "concat":
            raise SpecError(
                f"site {site.number} (concat in {site.where}) hands its maps on side by side, and a "
                "fusion makes one of them: it cannot start as that",
                hint="init=neutral is for additions: at=add",
            )
        made = start_neutral(made)
    if not isinstance(made, GatedFusion | Addition | Concatenation):
        check_shape(site, made)
    if site.kind == "add":
        return made
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + site.number)
        return Joint(made, site.channels, ndim)


def adapter_params(site: Site) -> int:
    """Parameters of what a site needs beside its fusion."""
    if site.kind == "add":
        return 0
    before = sum(c * site.width + site.width for c in site.channels if c != site.width)
    return before + site.width * site.out + site.out


@torch.no_grad()
def start_neutral(fusion: nn.Module) -> nn.Module:
    """Let a fusion of ours start as the sum of its two maps: its last gate at one half and its gain at two.

    Only the last pass's logits start at 0, by the last norm of each branch: so every parameter has a gradient from the
    second step on, those of an earlier pass through the context they make. Raises `SpecError` for what cannot start so.
    """
    if isinstance(fusion, Addition):
        return fusion
    if isinstance(fusion, Concatenation):
        weight, bias = fusion.conv.parameters()
        for block in weight.chunk(fusion.grammar.inputs, dim=1):
            nn.init.dirac_(block)
        nn.init.zeros_(bias)
        return fusion
    if not isinstance(fusion, GatedFusion):
        raise SpecError(
            f"init=neutral is for fusions of afftool's own, not {type(fusion).__name__}",
            hint="leave init out: a module of your own starts as its constructor made it",
        )
    grammar = fusion.grammar
    if grammar.strategy != "selection" or grammar.inputs != 2 or grammar.norm == "none" or grammar.join == "concat":
        raise SpecError(
            f"init=neutral needs a selection of two maps whose branches end in a norm, not {grammar.strategy} of "
            f"{grammar.inputs} with norm={grammar.norm} and join={grammar.join}",
            hint="aff and iaff can start so",
        )
    for name in fusion._passes[-1].branches:
        last: nn.Module = getattr(fusion, name)[-1]
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
    gain = 1.0 if grammar.gate == "tanh" else 2.0
    fusion.grammar = dataclasses.replace(grammar, gain=gain)
    return fusion
