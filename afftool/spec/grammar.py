"""The grammar of fusions: its settings, and which of them make sense together."""

from __future__ import annotations

import dataclasses
import reprlib
from dataclasses import dataclass
from typing import Any, Literal

from afftool.errors import BatchStatisticsError, SpecError
from afftool.plain import check_choices
from afftool.spec.amounts import MOST_WHOLE, check_whole
from afftool.spec.text import show

Strategy = Literal["add", "concat", "refinement", "modulation", "selection"]
Context = Literal["none", "x", "y", "both"]
Join = Literal["add", "half", "concat", "recursive"]
Integration = Literal["sum", "concat"]
Norm = Literal["batch", "layer", "none"]
Activation = Literal["relu", "silu"]
Gate = Literal["sigmoid", "tanh"]
Scale = str | int
"""`global`, `local`, or k for a map pooled to k positions a side."""


MOST_PARTS = 64
"""Maps that are fused, passes that are made, scales that are looked at: each is built."""
MOST_POSITIONS = 1_024
_WHOLE = (("reduction", 1, MOST_WHOLE), ("iterations", 1, MOST_PARTS), ("inputs", 2, MOST_PARTS))


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """One fusion of two or more feature maps, as a point in the space of everything the paper compares.

    The fields are explained one by one in `describe`; the formulas are those of Table 1. `iterations` counts
    attention passes: 1 gates the initial integration itself (AFF), 2 gates the result of a first AFF (iAFF).
    """

    strategy: Strategy = "selection"
    context: Context = "both"
    scales: tuple[Scale, ...] = ("local", "global")
    join: Join = "add"
    integration: Integration = "sum"
    iterations: int = 1
    share_global: bool = False
    reduction: int = 4
    norm: Norm = "batch"
    activation: Activation = "relu"
    gate: Gate = "sigmoid"
    gain: float = 1.0
    ndim: int = 2
    inputs: int = 2

    def __post_init__(self) -> None:
        check_choices(self)
        for name, low, high in _WHOLE:
            check_whole(f"{name}=", getattr(self, name), least=low, most=high, hint=f"for example {name}=4")
        if self.ndim not in (1, 2, 3):
            raise SpecError(f"ndim={self.ndim} is not allowed", hint="maps have 1, 2 or 3 spatial dimensions")
        if not 0 < abs(self.gain) < float("inf"):
            raise SpecError(f"gain={self.gain} is not a usable factor", hint="1 is the paper's, 2 the released code's")
        if self.strategy in ("add", "concat"):
            self._refuse_attention()
        else:
            self._check_attention()

    def _refuse_attention(self) -> None:
        default = _ATTENTION_DEFAULTS
        for name, value in default.items():
            if getattr(self, name) != value:
                raise SpecError(
                    f"{self.strategy} has no attention, so {name}={show(getattr(self, name))} means nothing",
                    hint="only gain, ndim and inputs apply to add and concat; "
                    "for attention start from aff, or set strategy and context as well",
                )

    def _check_attention(self) -> None:
        if self.context == "none":
            raise SpecError(f"{self.strategy} needs a context to attend to", hint="context=x, y or both")
        if not self.scales:
            raise SpecError(f"{self.strategy} needs at least one scale", hint="for example scales=local+global")
        if len(self.scales) > MOST_PARTS:
            raise SpecError(f"{len(self.scales)} scales are too many", hint=f"use {MOST_PARTS} or fewer")
        for scale in self.scales:
            if scale not in ("local", "global") and not (isinstance(scale, int) and 2 <= scale <= MOST_POSITIONS):
                raise SpecError(
                    f"scale {reprlib.repr(scale)} is not allowed",
                    hint=f"local, global, or a whole number from 2 to {MOST_POSITIONS:,}: the map is pooled to that "
                    "many positions a side",
                )
        if self.join != "add" and len(self.scales) < 2:
            raise SpecError(f"join={self.join} needs two scales to join", hint="for example scales=local+global")
        if self.join == "recursive" and len(self.scales) != 2:
            raise SpecError("join=recursive selects between exactly two contexts", hint="give two scales")
        if self.iterations > 1 and self.strategy != "selection":
            raise SpecError(
                f"iterations={self.iterations} needs strategy=selection, not {self.strategy}",
                hint="an iterated integration is itself a soft selection (paper, Section 4.2)",
            )
        if self.integration == "concat" and self.context != "both":
            raise SpecError("integration=concat integrates both inputs", hint="use context=both")
        if self.share_global and (self.iterations < 2 or self.scales.count("global") != 1 or self.join == "half"):
            raise SpecError(
                "share_global needs a second pass and one global scale to share", hint="for example open-iaff"
            )
        if self.share_global and self.integration == "concat":
            raise SpecError("share_global needs passes of equal width", hint="use integration=sum")
        if self.gate == "tanh" and (self.strategy != "selection" or self.inputs != 2):
            raise SpecError(
                "gate=tanh weighs two inputs by 1 + t and 1 - t",
                hint="use it with strategy=selection and inputs=2",
            )

    @property
    def attends(self) -> bool:
        """Whether there is an attention module at all."""
        return self.strategy not in ("add", "concat")

    def inner_channels(self, channels: int) -> int:
        """Width of each attention branch's bottleneck; `half` shares one budget between the branches.

        Raises `SpecError` if `channels` are fewer than the reduction.
        """
        reduction = self.reduction * (len(self.scales) if self.join == "half" else 1)
        if channels < reduction:
            raise SpecError(
                f"{channels} channels cannot be reduced by {reduction}",
                hint=f"use reduction={max(1, channels * self.reduction // reduction)} or less, or more channels",
            )
        inner = channels // reduction
        if self.norm == "layer" and inner == 1 and "global" in self.scales:
            raise SpecError(
                f"norm=layer over the {inner} value that {channels} channels reduced by {reduction} leave is always 0",
                hint=f"use reduction={max(1, channels // 2)} or less, or norm=none",
            )
        return inner

    def check_batch_statistics(self, batch: int, positions: int) -> None:
        """Refuse a training step whose batch norm would see a single value a channel.

        `positions` is the number of spatial positions of the feature maps. Raises `BatchStatisticsError`.
        """
        if not self.attends or self.norm != "batch":
            return
        # A recursive join looks at the joined contexts with an MS-CAM, which has a global branch.
        for scale in (*self.scales, *(("global",) if self.join == "recursive" else ())):
            positions_seen = scale**self.ndim if isinstance(scale, int) else positions if scale == "local" else 1
            if batch * positions_seen < 2:
                raise BatchStatisticsError(
                    f"batch norm in the {scale} branch would see one value a channel (batch {batch})",
                    hint="train with a batch of 2 or more, use norm=layer, or call .eval()",
                )


_ATTENTION_DEFAULTS: dict[str, Any] = {
    **{f.name: f.default for f in dataclasses.fields(Grammar) if f.name not in ("strategy", "gain", "ndim", "inputs")},
    "context": "none",
    "scales": (),
}
