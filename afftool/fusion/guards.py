"""What every fusion checks before it computes: the shapes, and the statistics batch norm would see."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from afftool.errors import ShapeError
from afftool.spec import Grammar


def check_inputs(inputs: Sequence[torch.Tensor], channels: int, grammar: Grammar, training: bool) -> None:
    """Refuse feature maps that do not fit the module or each other; nothing is broadcast.

    `inputs` must be `grammar.inputs` tensors of one shape `(N, channels, *spatial)` with `grammar.ndim` spatial
    dimensions. Raises `ShapeError`, or `BatchStatisticsError` in training where batch norm would see one value.
    """
    if len(inputs) != grammar.inputs:
        raise ShapeError(
            f"this fusion takes {grammar.inputs} feature maps and got {len(inputs)}",
            hint=f"build it with inputs={len(inputs)}" if len(inputs) > 1 else "call it as fusion(x, y)",
        )
    first = inputs[0].shape
    for other in inputs[1:]:
        if other.shape != first:
            raise ShapeError(
                f"feature maps differ in shape: {tuple(first)} and {tuple(other.shape)}",
                hint="project or resize one of them first; broadcasting would fuse the wrong positions silently",
            )
    if len(first) != grammar.ndim + 2 or first[1] != channels:
        expected = ", ".join(["N", str(channels), *"DHW"[3 - grammar.ndim :]])
        raise ShapeError(
            f"this fusion expects maps of shape ({expected}) and got {tuple(first)}",
            hint="build it with the channels and ndim of your maps; a batch dimension is always needed",
        )
    if training:
        grammar.check_batch_statistics(first[0], math.prod(first[2:]))
