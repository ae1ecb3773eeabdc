"""The attention weights at initialisation: their mean, how much of them is saturated, and what they listen to.

Findings and their numbers call them the gate, as most users do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from afftool.inspect.finding import Finding
from afftool.inspect.subject import EXACT, SAME, Subject, call, precise, rms

FAR_APART = 0.5
"""A selection's weights are read off where normal inputs differ by at least this, at 72% of all places.

What rounding adds to a weight is twice what it adds to the output there, at most.
"""
CONSTANT = 1e-4
"""A spread below this is none: that of the catalog's gates is 0.11 or more, what rounding makes of a constant 1e-6."""
OFF_HALF = 0.2
"""A mean this far from a half is worth a note: the logits are then 0.85 off. The catalog's means are within 0.04."""
SELECTION = "selection"
_BRANCH = re.compile(r"(local|global|pool\d+)_att")


def attention_weights(subject: Subject) -> list[Finding]:
    """Statistics of the weights on a batch of normal maps, in training mode, as a first step sees it.

    A soft selection's weights are read off its output, of whatever make it is. Of other fusions, what squashing
    functions give inside is taken for them.
    """
    selection = _selection_weights(subject)
    found = caught_weights(subject) if selection is None else [AttentionWeights(SELECTION, selection[None])]
    if not found:
        return [_none(subject.known)]
    shares = _branch_shares(subject)
    return [_told(weights, statistics(weights.kind, weights.values, subject.size) | shares) for weights in found]


def _told(weights: AttentionWeights, numbers: dict[str, float]) -> Finding:
    kind = "sigmoid" if weights.kind == SELECTION else weights.kind
    measured = {"gate": weights.kind, "calls": len(weights.values), **numbers}
    spoken = _spoken(weights, numbers)
    if not all(math.isfinite(value) for value in numbers.values()):
        what = f"the gate is not finite in training ({weights.kind})"
        return Finding(severity="unknown", what=what, measured=measured)
    if numbers["saturated"] > TOO_MANY:
        return Finding(
            severity="warning",
            what=f"the gate starts out saturated ({spoken})",
            why=f"A saturated {kind} passes less than {PASSES:.0%} of the gradient that it passes half-way, so the "
            "attention learns late or never.",
            do=f"Scale the logits down: a norm before the {kind}, or a smaller first initialisation.",
            measured=measured,
        )
    if _constant(weights.kind, numbers):
        return Finding(
            severity="warning",
            what=f"the gate is the same everywhere ({spoken})",
            why="A constant gate is a fixed weighted sum: its attention costs time and decides nothing.",
            do="Look for a last layer initialised to 0, or a norm that cancels its input.",
            measured=measured,
        )
    open_half_way = kind not in ("sigmoid", "hardsigmoid") or abs(numbers["mean"] - 0.5) <= OFF_HALF
    return Finding(severity="ok" if open_half_way else "note", what=spoken, measured=measured)


def _constant(kind: str, numbers: dict[str, float]) -> bool:
    """Whether it has no spread to speak of; a softmax over many is small everywhere, so next to its mean."""
    return numbers["spread"] < CONSTANT * (2 * numbers["mean"] if kind == "softmax" else 1)


def _spoken(weights: AttentionWeights, numbers: dict[str, float]) -> str:
    calls = f" ({len(weights.values)} calls)" if len(weights.values) > 1 else ""
    named = "" if weights.kind == SELECTION else f"{weights.kind}{calls}: "
    digits = ".2g" if weights.kind == "softmax" else ".2f"
    spoken = f"{named}mean {numbers['mean']:{digits}}, spread {numbers['spread']:{digits}}, "
    spoken += f"{numbers['saturated']:.1%} saturated"
    if "position_share" in numbers and not _constant(weights.kind, numbers):
        spoken += f"; {numbers['position_share']:.0%} of it varies with the position, the rest with channel and image"
    if "local_share" in numbers:
        spoken += f"; of the logits' variance {numbers['local_share']:.0%} is local, the rest pooled"
    return spoken


def _none(known: bool) -> Finding:
    if known:
        return Finding(severity="ok", what="it has no gate", measured={"gate": None})
    return Finding(
        severity="note",
        what="no gate was found: it is no soft selection, and calls no sigmoid, softmax, tanh or hardsigmoid of torch",
        why="If it has one, nothing here says whether it is saturated.",
        do="Compute it by torch.sigmoid or torch.softmax to have it looked at.",
        measured={"gate": None},
    )


def _selection_weights(subject: Subject) -> torch.Tensor | None:
    """The weight of x, NaN where it cannot be told; None where the fusion is no selection between two inputs."""
    if subject.inputs != 2 or subject.uneven:
        return None
    make, (x, y) = precise(subject, training=True)
    with torch.no_grad():
        equal = call(make(), [x.clone(), x.clone()])
        factor = float((equal * x).sum() / x.square().sum())
        if factor == 0 or not rms(equal - factor * x) <= EXACT * rms(x):
            return None
        # A selection is z = c (w x + (1 - w) y). Equal inputs have given c; so w = (z / c - y) / (x - y), which is
        # rounding error and nothing else where x and y are close.
        out = call(make(), [x.clone(), y.clone()])
        if rms(out - factor / 2 * (x + y)) <= EXACT * rms(x):
            return None  # half of each, always: a sum, not a selection
    weight = (out / factor - y) / (x - y)
    return torch.where((x - y).abs() >= FAR_APART, weight, torch.nan)


def _branch_shares(subject: Subject) -> dict[str, float]:
    """How much of the logits' variance comes from the branches that look at each position, the rest being pooled."""
    if not subject.known:
        return {}
    module = subject.module(training=True)
    variances: dict[str, float] = {"local": 0.0, "pooled": 0.0}

    def listen(kind: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def heard(_module: nn.Module, _inputs: Any, out: torch.Tensor) -> None:
            variances[kind] += float(out.detach().double().var())

        return heard

    found = False
    for name, child in module.named_children():
        match = _BRANCH.match(name)
        if match:
            found = True
            child.register_forward_hook(listen("local" if match[1] == "local" else "pooled"))
    with torch.no_grad():
        call(module, subject.maps())
    total = sum(variances.values())
    return {"local_share": variances["local"] / total} if found and total > 0 else {}


# What sigmoid, softmax, tanh and hardsigmoid give inside a module, caught while it runs.

_KINDS = {
    "sigmoid": "sigmoid",
    "special_expit": "sigmoid",
    "hardsigmoid": "hardsigmoid",
    "softmax": "softmax",
    "special_softmax": "softmax",
    "gumbel_softmax": "softmax",
    "tanh": "tanh",
}
"""Functions and methods by their names in torch; the layers of `torch.nn` call these."""


@dataclass(frozen=True)
class AttentionWeights:
    """What the calls of one kind and shape gave in a forward pass: `values[i]` by the i-th of them."""

    kind: str
    values: torch.Tensor


def caught_weights(subject: Subject) -> list[AttentionWeights]:
    """The weights that can be seen in one forward pass in training mode, in the order of their first call.

    What a fused operator (GELU, SiLU, GRU, attention) does inside is not among them: no fusion weighs its inputs by it.
    """
    with torch.no_grad(), _Catch() as caught:
        call(subject.module(training=True), subject.maps())
    groups: dict[tuple[str, tuple[int, ...]], list[torch.Tensor]] = {}
    for kind, values in caught.results:
        groups.setdefault((kind, tuple(values.shape)), []).append(values)
    return [AttentionWeights(kind, torch.stack(values).double()) for (kind, _), values in groups.items()]


class _Catch(TorchFunctionMode):
    """Keeps a copy of each result, since the next operation may write into it."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[tuple[str, torch.Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = _KINDS.get(getattr(func, "__name__", "").removesuffix("_"))
        if kind and isinstance(out, torch.Tensor) and out.ndim and out.is_floating_point():
            self.results.append((kind, out.detach().clone()))
        return out


# The weights in numbers.

PASSES = 0.01
"""A weight that passes less than this share of the gradient that it can pass at best is saturated.

Half-way a sigmoid passes most. At a logit of 6, a weight of 0.0025, it learns a hundred times slower; at a weight of
0.05 it still passes 19%.
"""
TOO_MANY = 0.25
"""The share of saturated weights from which a gate is.

Over the catalog in 1d, 2d and 3d, at 8 and 64 channels: 0.6% of a sigmoid's at most, 3.9% of a tanh's. With its logits
scaled by 3 up to 19% of a sigmoid's (a tanh's 51%: its logits count twice); by 10, 38% or more; by 30, 57% or more. The
one exception is `concat-aff`, whose logits are the smallest: 19 to 30% at a scale of 10.
"""


def statistics(kind: str, values: torch.Tensor, size: tuple[int, ...]) -> dict[str, float]:
    """The numbers of one kind of weights, on maps of `size`: `values[i]` of its i-th call, NaN where it cannot be told.

    `position_share` is the variance within each channel of each image over the whole: the share of the spread that
    is local, the rest being global. It is left out where the layout does not say which axis is the position.
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
    if kind == "hardsigmoid":
        return (kept <= 0) | (kept >= 1)  # straight between, and flat beyond: all of the gradient or none
    if kind == "softmax":
        # Of many weights most are near 0 and may still move: a softmax is saturated where one of them takes it all.
        sums = (axis for axis in range(1, values.ndim) if bool((values.sum(axis) - 1).abs().max() <= SAME))
        axis = next(sums, None)
        if axis is not None:
            largest = values.amax(axis)
            return (largest > 0.5) & (_passes(largest) < PASSES)
    if kind == "tanh":
        kept = (1 + kept) / 2
    return _passes(kept) < PASSES


def _passes(weight: torch.Tensor) -> torch.Tensor:
    """The derivative by its own logit of a weight between 0 and 1, a share of the largest: w (1 - w) over a quarter."""
    return 4 * weight * (1 - weight)


def _positions(shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of one call's weights that run over positions: none of global weights, None where it cannot be told."""
    # By shape alone, so the surest layouts come first: maps of the inputs' size, then one value a channel, then
    # positions flattened into one axis (as attention over tokens has them), then maps that were made smaller.
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
