"""A gate in numbers: mean, spread, how much of it is saturated, and how much of its spread is local."""

from __future__ import annotations

import math

import torch

SATURATED = 0.05
"""A weight this near to 0 or 1 passes next to no gradient."""


def statistics(kind: str, values: torch.Tensor, size: tuple[int, ...]) -> dict[str, float]:
    """The numbers of one gate, on maps of `size`: `values[i]` of its i-th call, NaN where it cannot be told.

    `position_share` is the variance within each channel of each image over the whole: the share of the spread that
    is local, the rest being global. It is left out where the gate's layout does not say which axis is the position.
    """
    kept = values[~values.isnan()]
    if not kept.numel():
        return {"mean": math.nan, "spread": math.nan, "saturated": math.nan}
    numbers = {
        "mean": float(kept.mean()),
        "spread": float(kept.std()) if kept.numel() > 1 else 0.0,
        "saturated": float(_saturated(kind, values, kept).double().mean()),
    }
    axes = _positions(tuple(values.shape[1:]), size)
    if axes is not None:
        total = numbers["spread"] ** 2
        shifted = tuple(axis + 1 for axis in axes)
        within = (values - values.nanmean(dim=shifted, keepdim=True)).square() if axes else torch.zeros(1)
        local = float(within[~within.isnan()].mean())
        numbers["position_share"] = min(1.0, local / total) if total > 0 else 0.0
    return numbers


def _saturated(kind: str, values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    if kind == "softmax":
        # Of many weights most are near 0 and may still move: a softmax is saturated where one of them takes it all.
        sums = (axis for axis in range(1, values.ndim) if bool((values.sum(axis) - 1).abs().max() < 1e-3))
        axis = next(sums, None)
        if axis is not None:
            return values.amax(axis) > 1 - SATURATED
    if kind == "tanh":
        kept = (1 + kept) / 2
    return (kept < SATURATED) | (kept > 1 - SATURATED)


def _positions(shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of one call's gate that run over positions: none of a global gate, None where it cannot be told."""
    dims = len(size)
    trailing = tuple(range(len(shape) - dims, len(shape)))
    places = math.prod(size)
    if len(shape) > dims and shape[-dims:] == size:
        return trailing
    if shape[1 : 1 + dims] == size:  # channels last
        return tuple(range(1, 1 + dims))
    if len(shape) <= 2 or all(extent == 1 for extent in shape[-dims:]):
        return ()
    flat = [axis for axis in range(1, len(shape)) if shape[axis] == places]
    if len(flat) == 1:
        return tuple(flat)
    return trailing if len(shape) == dims + 2 and not flat else None
