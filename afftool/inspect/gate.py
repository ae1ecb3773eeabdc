"""What the gate does at initialisation: its mean, how much of it is saturated, and what it listens to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from afftool.inspect.finding import Finding
from afftool.inspect.scale import EXACT
from afftool.inspect.subject import Subject, call, precise, rms

NAME = "gate"
SATURATED = 0.05
"""A weight this near to 0 or 1 passes next to no gradient."""
FAR_APART = 0.5
"""The gate is read off where the inputs differ by at least this."""
_BRANCH = re.compile(r"(local|global|pool\d+)_att")


def check(subject: Subject) -> list[Finding]:
    """Gate statistics on a batch of normal maps, in training mode, as a first step sees it.

    A soft selection's gate is read off its output, of whatever make it is: `w = (z / c - y) / (x - y)`, where `c` is
    the factor on equal inputs. For other fusions of the grammar the module is asked.
    """
    gate = _selection_gate(subject)
    if gate is None and subject.known:
        gate = _asked_gate(subject)
    if gate is None:
        return [
            Finding(
                check=NAME,
                severity="ok",
                what="no gate to be read: not a soft selection, and none of our grammar's",
                measured={"gate": None},
            )
        ]
    measured = _statistics(gate) | _branch_shares(subject)
    spoken = (
        f"mean {measured['mean']:.2f}, spread {measured['spread']:.2f}, {measured['saturated']:.1%} saturated; "
        f"{measured['position_share']:.0%} of it varies with the position, the rest with channel and image"
    )
    if "local_share" in measured:
        spoken += f"; of the logits' variance {measured['local_share']:.0%} is local, the rest pooled"
    if measured["spread"] < 1e-4:
        return [
            Finding(
                check=NAME,
                severity="warning",
                what=f"the gate is the same everywhere ({spoken})",
                why="A constant gate is a fixed weighted sum: its attention costs time and decides nothing.",
                do="Look for a last layer initialised to 0, or a norm that cancels its input.",
                measured=measured,
            )
        ]
    if measured["saturated"] > 0.5:
        return [
            Finding(
                check=NAME,
                severity="warning",
                what=f"the gate starts out saturated ({spoken})",
                why="A saturated sigmoid passes no gradient, so the attention learns late or never.",
                do="Scale the logits down: a norm before the sigmoid, or a smaller first initialisation.",
                measured=measured,
            )
        ]
    severity = "note" if abs(measured["mean"] - 0.5) > 0.2 else "ok"
    return [Finding(check=NAME, severity=severity, what=spoken, measured=measured)]  # type: ignore[arg-type]


def _selection_gate(subject: Subject) -> torch.Tensor | None:
    """The weight of x, NaN where it cannot be told; None where the fusion is no selection between two inputs."""
    if subject.inputs != 2:
        return None
    make, (x, y) = precise(subject, training=True)
    module = make()
    with torch.no_grad():
        equal = call(module, [x, x])
        factor = float((equal * x).sum() / x.square().sum())
        if factor == 0 or rms(equal - factor * x) > EXACT * rms(x):
            return None
        weight = (call(module, [x, y]) / factor - y) / (x - y)
        total = call(module, [x, y]) - factor / 2 * (x + y)
        if rms(total) <= EXACT * rms(x):
            return None  # half of each, always: a sum, not a selection
    return torch.where((x - y).abs() >= FAR_APART, weight, torch.nan)


def _asked_gate(subject: Subject) -> torch.Tensor | None:
    module = subject.module(training=True)
    attention = cast(Callable[..., torch.Tensor] | None, getattr(module, "attention", None))
    if attention is None:
        return None
    maps = subject.maps()
    with torch.no_grad():
        gate = attention(*maps)
    shape = (*gate.shape[:2], *maps[0].shape[2:])
    return gate.expand(shape).double()


def _statistics(gate: torch.Tensor) -> dict[str, Any]:
    kept = gate[~gate.isnan()]
    flat = gate.flatten(2)
    centres = flat.nanmean(dim=2, keepdim=True)
    total = kept.var().item() if kept.numel() > 1 else 0.0
    within = (flat - centres).square()
    within_mean = float(within[~within.isnan()].mean()) if kept.numel() else 0.0
    return {
        "mean": float(kept.mean()),
        "spread": float(kept.std()),
        "saturated": float(((kept < SATURATED) | (kept > 1 - SATURATED)).double().mean()),
        "position_share": min(1.0, within_mean / total) if total > 0 else 0.0,
    }


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
