"""Fusions with attention: refinement, modulation and soft selection (paper, Table 1), AFF and iAFF among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from afftool.fusion.attention import attach_pass, sum_maps
from afftool.fusion.guards import check_inputs
from afftool.spec import Grammar

Gate = Callable[[Grammar, Sequence[torch.Tensor], torch.Tensor], torch.Tensor]


def refine(grammar: Grammar, inputs: Sequence[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """`X + G (x) Y`: the last map is refined by attention, the others are added."""
    return sum_maps(inputs[:-1]) + torch.sigmoid(logits) * inputs[-1]


def modulate(grammar: Grammar, inputs: Sequence[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """`G (x) X + Y`: every map but the last is modulated, each by its own share of the logits."""
    weights = torch.sigmoid(logits).chunk(len(inputs) - 1, dim=1)
    return sum_maps([weight * x for weight, x in zip(weights, inputs[:-1], strict=True)]) + inputs[-1]


def select(grammar: Grammar, inputs: Sequence[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """`G (x) X + (1 - G) (x) Y`; for n maps a softmax over n logits an element, the last one fixed at 0."""
    if grammar.gate == "tanh":
        weight = torch.tanh(logits)
        return inputs[0] * (1 + weight) + inputs[1] * (1 - weight)
    if len(inputs) == 2:
        weight = torch.sigmoid(logits)
        return inputs[0] * weight + inputs[1] * (1 - weight)
    given = torch.stack(logits.chunk(len(inputs) - 1, dim=1))
    weights = torch.softmax(torch.cat([given, torch.zeros_like(given[:1])]), dim=0)
    return sum_maps([weight * x for weight, x in zip(weights, inputs, strict=True)])


GATES: dict[str, Gate] = {"refinement": refine, "modulation": modulate, "selection": select}


class GatedFusion(nn.Module):
    """Any fusion of the grammar that attends: maps `(N, channels, *S)` to one of the same shape.

    Raises `SpecError` if `channels` are too few for the reduction; `forward` raises `ShapeError` and
    `BatchStatisticsError`.
    """

    def __init__(self, channels: int, grammar: Grammar) -> None:
        super().__init__()
        self.channels = channels
        self.grammar = grammar
        self._gate = GATES[grammar.strategy]
        gated = 1 if grammar.strategy == "refinement" else grammar.inputs - 1
        concatenated = channels * grammar.inputs if grammar.integration == "concat" else channels
        self._passes = tuple(
            attach_pass(self, grammar, channels, concatenated if number == 1 else channels, channels * gated, number)
            for number in range(1, grammar.iterations + 1)
        )

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Fuse the maps: `fusion(x, y)`, or as many as `grammar.inputs` says."""
        check_inputs(inputs, self.channels, self.grammar, self.training)
        fused = self._gate(self.grammar, inputs, self._logits(inputs))
        return fused if self.grammar.gain == 1 else self.grammar.gain * fused

    def attention(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The last pass's gate of `(x, y)` before it is applied: sigmoid or tanh of its logits, `(N, C, *S)`.

        With several gated maps their gates lie side by side in the channels. One position a side if every
        scale is global.
        """
        check_inputs(inputs, self.channels, self.grammar, self.training)
        logits = self._logits(inputs)
        return torch.tanh(logits) if self.grammar.gate == "tanh" else torch.sigmoid(logits)

    def _logits(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """The last pass's logits; every pass before it makes the next one's context."""
        *earlier, last = self._passes
        context = self._context(inputs)
        for attention in earlier:
            context = self._gate(self.grammar, inputs, attention.logits(self, context))
        return last.logits(self, context)

    def _context(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        if self.grammar.context != "both":
            return inputs[0] if self.grammar.context == "x" else inputs[-1]
        if self.grammar.integration == "concat":
            return torch.cat(list(inputs), dim=1)
        return sum_maps(inputs)


class AFF(GatedFusion):
    """Attentional feature fusion: `M(X + Y) (x) X + (1 - M(X + Y)) (x) Y` (paper, Section 4.1).

    `AFF(channels)(x, y)` maps two `(N, channels, *S)` to one of the same shape. Parameter names are those of the
    released PyTorch port, whose own AFF has a gain of 2 (`load_open_aff`, `open-aff`). Further `settings` are the
    fields of `afftool.spec.Grammar`.
    """

    def __init__(self, channels: int, reduction: int = 4, ndim: int = 2, **settings: object) -> None:
        super().__init__(channels, Grammar(reduction=reduction, ndim=ndim, **settings))  # type: ignore[arg-type]


class IAFF(GatedFusion):
    """Iterative AFF: AFF whose initial integration is another AFF with weights of its own (paper, Section 4.2).

    Shapes, names and `settings` as for `AFF`. The released port's second pass shares the first one's global branch
    instead (`load_open_aff`, `open-iaff`).
    """

    def __init__(self, channels: int, reduction: int = 4, ndim: int = 2, **settings: object) -> None:
        chosen = {"iterations": 2, **settings}
        super().__init__(channels, Grammar(reduction=reduction, ndim=ndim, **chosen))  # type: ignore[arg-type]
