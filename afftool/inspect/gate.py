"""What the gate does at initialisation: its mean, how much of it is saturated, and what it listens to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from afftool.inspect.finding import Finding
from afftool.inspect.gate_numbers import statistics
from afftool.inspect.scale import EXACT
from afftool.inspect.squash import Squashed, squashed
from afftool.inspect.subject import Subject, call, precise, rms

FAR_APART = 0.5
"""The gate is read off where the inputs differ by at least this."""
CONSTANT = 1e-4
"""A spread below this is none."""
SELECTION = "selection"
_BRANCH = re.compile(r"(local|global|pool\d+)_att")


def check(subject: Subject) -> list[Finding]:
    """Gate statistics on a batch of normal maps, in training mode, as a first step sees it.

    A soft selection's gate is read off its output, of whatever make it is: `w = (z / c - y) / (x - y)`, where `c` is
    the factor on equal inputs. Of other fusions, what squashing functions give inside is taken for gates.
    """
    selection = _selection_gate(subject)
    gates = squashed(subject) if selection is None else [Squashed(SELECTION, selection[None])]
    if not gates:
        return [_none(subject.known)]
    shares = _branch_shares(subject)
    return [_finding(gate, statistics(gate.kind, gate.values, subject.size) | shares) for gate in gates]


def _finding(gate: Squashed, numbers: dict[str, float]) -> Finding:
    kind = "sigmoid" if gate.kind == SELECTION else gate.kind
    measured = {"gate": gate.kind, "calls": len(gate.values), **numbers}
    spoken = _spoken(gate, numbers)
    if not all(math.isfinite(value) for value in numbers.values()):
        what = f"the gate is not finite in training ({gate.kind})"
        return Finding(severity="unknown", what=what, measured=measured)
    if numbers["saturated"] > 0.5:
        return Finding(
            severity="warning",
            what=f"the gate starts out saturated ({spoken})",
            why=f"A saturated {kind} passes no gradient, so the attention learns late or never.",
            do=f"Scale the logits down: a norm before the {kind}, or a smaller first initialisation.",
            measured=measured,
        )
    if _constant(gate.kind, numbers):
        return Finding(
            severity="warning",
            what=f"the gate is the same everywhere ({spoken})",
            why="A constant gate is a fixed weighted sum: its attention costs time and decides nothing.",
            do="Look for a last layer initialised to 0, or a norm that cancels its input.",
            measured=measured,
        )
    open_half_way = kind not in ("sigmoid", "hardsigmoid") or abs(numbers["mean"] - 0.5) <= 0.2
    return Finding(severity="ok" if open_half_way else "note", what=spoken, measured=measured)


def _constant(kind: str, numbers: dict[str, float]) -> bool:
    """Whether it has no spread to speak of; a softmax over many is small everywhere, so next to its mean."""
    return numbers["spread"] < CONSTANT * (2 * numbers["mean"] if kind == "softmax" else 1)


def _spoken(gate: Squashed, numbers: dict[str, float]) -> str:
    calls = f" ({len(gate.values)} calls)" if len(gate.values) > 1 else ""
    named = "" if gate.kind == SELECTION else f"{gate.kind}{calls}: "
    digits = ".2g" if gate.kind == "softmax" else ".2f"
    spoken = f"{named}mean {numbers['mean']:{digits}}, spread {numbers['spread']:{digits}}, "
    spoken += f"{numbers['saturated']:.1%} saturated"
    if "position_share" in numbers and not _constant(gate.kind, numbers):
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


def _selection_gate(subject: Subject) -> torch.Tensor | None:
    """The weight of x, NaN where it cannot be told; None where the fusion is no selection between two inputs."""
    if subject.inputs != 2:
        return None
    make, (x, y) = precise(subject, training=True)
    with torch.no_grad():
        equal = call(make(), [x.clone(), x.clone()])
        factor = float((equal * x).sum() / x.square().sum())
        if factor == 0 or not rms(equal - factor * x) <= EXACT * rms(x):
            return None
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
