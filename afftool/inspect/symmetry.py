"""Whether it matters which input is x and which is y, and whether both are used."""

from __future__ import annotations

import math

import torch

from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject, call, precise, rms

PROBES = 4
IGNORED = 1e-9


def check(subject: Subject) -> list[Finding]:
    """The change by swapping the first two inputs, and each input's share of the output's sensitivity."""
    make, maps = precise(subject)
    with torch.no_grad():
        plain = call(make(), [x.clone() for x in maps])
        swapped = call(make(), [x.clone() for x in (maps[1], maps[0], *maps[2:])])
    change = rms(plain - swapped) / (rms(plain) or 1.0)
    leaves = [x.clone().requires_grad_() for x in maps]
    out = call(make(), [x.clone() for x in leaves])
    pulls = [0.0] * len(leaves)
    for probe in range(PROBES):
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(probe), dtype=out.dtype)
        gradients = torch.autograd.grad(out, leaves, weights, retain_graph=True, allow_unused=True)
        for i, gradient in enumerate(gradients):
            pulls[i] += rms(gradient) ** 2 if gradient is not None else 0.0
    whole = sum(pulls) or 1.0
    shares = [pull / whole for pull in pulls]
    measured = {"change_by_swapping": change, "sensitivity_shares": shares}
    if not all(math.isfinite(value) for value in (change, *shares)):
        return [
            Finding(
                severity="fault",
                what="the gradient of the inputs is not finite, though the output is",
                why="The first step of a training writes NaN into every layer before.",
                do="Look for a square root, a norm or a logarithm at 0, and add a small constant under it.",
                measured=measured,
            )
        ]
    names = ["x", "y", *(f"input {i + 1}" for i in range(2, len(leaves)))]
    ignored = [name for name, share in zip(names, shares, strict=True) if share <= IGNORED]
    if ignored:
        return [
            Finding(
                severity="fault",
                what=f"the output does not depend on {' and '.join(ignored)}",
                why="What comes in there is computed for nothing, and its branch gets no gradient.",
                do="Look for an input that is overwritten, detached, or weighed by 0.",
                measured=measured,
            )
        ]
    spoken = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))
    if change <= 1e-9:
        what = f"symmetric: swapping the inputs changes nothing (sensitivity: {spoken})"
        return [Finding(severity="ok", what=what, measured=measured)]
    return [
        Finding(
            severity="note",
            what=f"not symmetric: swapping the inputs changes the output by {change:.0%} (sensitivity: {spoken})",
            why="A checkpoint trained with one order gives other results with the other, and nothing fails.",
            do="Keep to one order: by convention y has the larger receptive field (the residual, the 5x5 branch, the "
            "higher level).",
            measured=measured,
        )
    ]
