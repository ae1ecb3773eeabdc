"""How the signal's size travels through ten stacked residual blocks at initialisation, forward and back."""

from __future__ import annotations

import math

import torch
from torch import nn

from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject, call, rms

BLOCKS = 10
DRAWS = 3
FORWARD = (0.1, 10.0)
BACKWARD = (1e-4, 1e4)
"""Beyond these a network of this depth starts in trouble. Addition stays near 3 forward and below 10 back."""

_CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def check(subject: Subject) -> list[Finding]:
    """The size of the signal after each of ten blocks, and of the gradient before the first against after the last.

    Each block is the released CIFAR ResNet's: `x <- fusion(x, branch(x))`, the branch two times norm, ReLU, 3x3
    convolution with Kaiming initialisation, and nothing after the fusion. Training mode, geometric mean of three draws.
    """
    if subject.inputs != 2:
        what = "a residual block fuses two maps, this takes more"
        return [Finding(severity="ok", what=what, measured={"sizes": None})]
    sizes, pulls = zip(*(_travel(subject, draw) for draw in range(DRAWS)), strict=True)
    curve = [_middle([draw[block] for draw in sizes]) for block in range(BLOCKS + 1)]
    back = _middle(list(pulls))
    growth = curve[-1] / curve[0] if curve[0] else math.nan
    measured = {"sizes": curve, "growth": growth, "gradient_ratio": back}
    spoken = f"the signal ends {growth:.3g} times as large as it came in, its gradient comes back {back:.3g} times"
    if not (math.isfinite(growth) and math.isfinite(back)):
        return [_finding("fault", f"after {BLOCKS} blocks the signal or its gradient is not finite", measured)]
    if not FORWARD[0] <= growth <= FORWARD[1] or not BACKWARD[0] <= back <= BACKWARD[1]:
        return [_finding("warning", spoken, measured)]
    return [Finding(severity="ok", what=spoken, measured=measured)]


def _finding(severity: str, what: str, measured: dict[str, object]) -> Finding:
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
        x = call(fusion, [x, branch(x)])
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
