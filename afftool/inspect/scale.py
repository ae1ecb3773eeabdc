"""The size of the signal: after one fusion (above all, is it doubled?), and through ten blocks, there and back."""

from __future__ import annotations

import math

import torch
from torch import nn

from afftool import units
from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject, call, precise, rms

EXACT = 1e-5
"""Relative; what is constant is constant better than this, in single precision too."""


def output_scale(subject: Subject) -> list[Finding]:
    """The gain on equal inputs and on independent ones.

    Equal inputs tell what the weights of the inputs add up to: a selection gives back `x` for `x == y`, whatever its
    weights. A sum gives twice `x`, by definition; it is told apart by being the sum on independent inputs as well.
    """
    if subject.uneven:
        return [Finding(severity="ok", what="its maps differ in shape, so none can stand for another")]
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


BLOCKS = 10
STACKS = 3
FORWARD = (0.1, 10.0)
BACKWARD = (1e-4, 1e4)
"""Beyond these a network of this depth starts in trouble. Addition stays near 3 forward and below 10 back."""

_CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def ten_blocks(subject: Subject) -> list[Finding]:
    """The size of the signal after each of ten blocks, and of the gradient before the first against after the last.

    Each block is the released CIFAR ResNet's: `x <- fusion(x, branch(x))`, the branch two times norm, ReLU, 3x3
    convolution with Kaiming initialisation, and nothing after the fusion. Training mode, geometric mean of three draws.
    """
    if subject.inputs != 2 or subject.uneven:
        what = f"a residual block fuses two maps of one shape, this takes {'others' if subject.uneven else 'more'}"
        return [Finding(severity="ok", what=what, measured={"sizes": None})]
    sizes, pulls = zip(*(_travel(subject, draw) for draw in range(STACKS)), strict=True)
    curve = [_middle([draw[block] for draw in sizes]) for block in range(BLOCKS + 1)]
    back = _middle(list(pulls))
    growth = curve[-1] / curve[0] if curve[0] else math.nan
    measured = {"sizes": curve, "growth": growth, "gradient_ratio": back}
    spoken = f"the signal ends {growth:.3g} times as large as it came in, its gradient comes back {back:.3g} times"
    if not (math.isfinite(growth) and math.isfinite(back)):
        return [_drifts("fault", f"after {BLOCKS} blocks the signal or its gradient is not finite", measured)]
    if not FORWARD[0] <= growth <= FORWARD[1] or not BACKWARD[0] <= back <= BACKWARD[1]:
        return [_drifts("warning", spoken, measured)]
    return [Finding(severity="ok", what=spoken, measured=measured)]


def _drifts(severity: str, what: str, measured: dict[str, object]) -> Finding:
    return Finding(
        severity=severity,  # type: ignore[arg-type]
        what=what,
        why="A signal that grows or fades with depth makes the first layers learn at another rate than the last.",
        do="Take the factor out of the fusion, or divide by what it adds; see the finding on output scale.",
        measured=measured,
    )


def _travel(subject: Subject, seed: int) -> tuple[list[float], float]:
    ndim = len(subject.size)
    fusions = [subject.module(training=True, seed=100 * seed + block) for block in range(BLOCKS)]
    branches = [_branch(subject.channels, ndim, 100 * seed + block) for block in range(BLOCKS)]
    first = subject.maps(seed=seed, count=1)[0].requires_grad_()
    x, sizes = first, [rms(first)]
    for fusion, branch in zip(fusions, branches, strict=True):
        x = call(fusion, [x.clone(), branch(x)])  # it may write into them: the state in eval tells that
        sizes.append(rms(x))
    x.retain_grad()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    (x * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert first.grad is not None
    return sizes, rms(first.grad) / rms(weights)


def _branch(channels: int, ndim: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for _ in range(2):
            convolution = _CONV[ndim](channels, channels, kernel_size=3, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight)  # type: ignore[arg-type]
            layers += [_NORM[ndim](channels), nn.ReLU(), convolution]
        return nn.Sequential(*layers)


def _middle(values: list[float]) -> float:
    """The geometric mean; NaN if a value is not finite or not positive."""
    if not all(math.isfinite(v) and v > 0 for v in values):
        return math.nan
    return math.exp(sum(math.log(v) for v in values) / len(values))
