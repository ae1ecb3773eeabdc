"""What the fusion does to the size of the signal: above all, does it double it?"""

from __future__ import annotations

import torch

from afftool import units
from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject, call, precise, rms

EXACT = 1e-5
"""Relative; what is constant is constant better than this, in single precision too."""


def check(subject: Subject) -> list[Finding]:
    """The gain on equal inputs and on independent ones.

    Equal inputs tell what the weights of the inputs add up to: a selection gives back `x` for `x == y`, whatever its
    gate. A sum gives twice `x`, by definition; it is told apart by being the sum on independent inputs as well.
    """
    make, maps = precise(subject)
    with torch.no_grad():
        independent = call(make(), maps)
        equal = call(make(), [maps[0]] * subject.inputs)
        if not bool(torch.isfinite(equal).all()):
            return [_undefined()]
        ratio = float((equal * maps[0]).sum() / maps[0].square().sum())
        proportional = rms(equal - ratio * maps[0]) <= EXACT * rms(maps[0])
        total = torch.stack(maps).sum(0)
        factor = float((independent * total).sum() / total.square().sum())
        is_sum = rms(independent - factor * total) <= EXACT * rms(total)
    gain = rms(independent) / rms(maps[0])
    if not proportional:
        ratio = rms(equal) / rms(maps[0])
    measured: dict[str, object] = {
        "gain_equal_inputs": ratio,
        "gain_independent_inputs": gain,
        "constant": proportional,
        "sum": is_sum,
    }
    spoken = f"independent inputs of size 1 give an output of size {gain:.3g}"
    if is_sum and abs(factor - 1) <= EXACT:
        params = sum(parameter.numel() for parameter in make().parameters())
        if params:
            return [_idle(params, spoken, measured)]
        what = f"it is the plain sum: equal inputs come out {ratio:.3g} times as large, as in every addition; {spoken}"
        return [Finding(severity="ok", what=what, measured=measured)]
    if is_sum:
        return [_scaled(f"it is {factor:.4g} times the sum of its inputs; {spoken}", measured)]
    if not proportional:
        what = f"equal inputs come out {ratio:.3g} times as large, though not by one factor; {spoken}"
        return [Finding(severity="ok", what=what, measured=measured)]
    if abs(ratio - 1) <= EXACT:
        what = f"equal inputs come out as they are: the inputs' weights add up to 1; {spoken}"
        return [Finding(severity="ok", what=what, measured=measured)]
    doubled = "it doubles: " if abs(ratio - 2) <= EXACT else ""
    return [_scaled(f"{doubled}its gates' weights add up to {ratio:.4g}, not 1; {spoken}", measured)]


def _idle(params: int, spoken: str, measured: dict[str, object]) -> Finding:
    return Finding(
        severity="note",
        what=f"it acts as the plain sum, though it has {units.count(params)} parameters; {spoken}",
        why="Whatever they are for makes no difference at initialisation: a gate that is saturated, a branch that "
        "starts at 0, or one that is not used.",
        do="A branch that starts at 0 on purpose is fine; else see the findings on dead parameters and on the gate.",
        measured=measured | {"params": params},
    )


def _undefined() -> Finding:
    return Finding(
        severity="fault",
        what="equal inputs give an output that is not finite",
        why="Two branches may well agree: both are 0 behind a ReLU, or start from the same weights.",
        do="Look for a division by what differs between the inputs, and add a small constant to it.",
    )


def _scaled(what: str, measured: dict[str, object]) -> Finding:
    return Finding(
        severity="warning",
        what=what,
        why="A soft selection keeps the signal's size; one with another gain grows or shrinks it in every block. The "
        "released AFF has a gain of 2 that the paper's formula does not have, so the two are not interchangeable.",
        do="Leave the factor out to have the paper's module, or keep it on purpose (checkpoints trained with it need "
        "it) and name it: `gain=2`.",
        measured=measured,
    )
