"""The size of the signal: after one fusion (above all, is it doubled?), and through ten blocks, there and back."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from afftool import units
from afftool.inspect.finding import Finding, Severity
from afftool.inspect.subject import EXACT, Subject, call, first_map, precise, rms
from afftool.stats import Interval, of_processes


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
STACKS = 8
"""Draws of weights and maps: their interval mostly reaches 1 to 5% to either side, for a block."""
FORWARD = 10 ** (1 / BLOCKS)
"""How many times addition's a block may make the signal, or make it smaller: ten times after ten blocks.

The catalog in 1d, 2d and 3d, at 8 to 64 channels and extents of 4 to 32: 0.82 (`concat`, which weighs by less than a
half) to 1.17 (`eres2net-aff`). `aff:gain=3` lies at 1.6, `aff:gain=0.5` at 0.79.
"""
BACKWARD = 1.2
"""How many times addition's a block may make the gradient on its way back, or make it smaller.

A stack without any skip (`y` alone) lies at 1.08 to 1.20: from there on the skip connection is no help. The catalog at
the same 20 settings: sums and refinements 0.95 to 1.02, modulations and selections by one attention 1.02 to 1.21 (on 1d
maps of length 6 to 1.24), `iaff` 1.22 to 1.35 and `open-iaff` 1.22 to 1.40 (once 1.18, at 8 channels), a gain of 2
(`open-aff`, `eres2net-aff`) 1.23 to 1.42. It is the slope of a gate whose last norm takes statistics over the batch:
with norm=layer it is 1.01 to 1.09.
"""
NOTED = 1.1
"""From here on it is worth knowing of a gradient: 2.6 times addition's in ten blocks."""

_CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def ten_blocks(subject: Subject) -> list[Finding]:
    """How a block changes the size of the signal, and of the gradient on its way back, beside addition's.

    Each block is the released CIFAR ResNet's: `x <- fusion(x, branch(x))`, the branch two times norm, ReLU, 3x3
    convolution with Kaiming initialisation, and nothing after the fusion. Training mode. Addition stands in the same
    stacks: the same branches and maps. A block's growth is the tenth root of ten blocks'; what is held against it is
    the geometric mean over the draws, told with its 95% interval.
    """
    if subject.inputs != 2 or subject.uneven:
        what = f"a residual block fuses two maps of one shape, this takes {'others' if subject.uneven else 'more'}"
        return [Finding(severity="ok", what=what, measured={"sizes": None})]
    ours = _Grown.of([_travel(_first_map(subject, draw), _fusions(subject, draw), draw) for draw in range(STACKS)])
    sums = _addition(subject.channels, subject.size, subject.batch)
    measured: dict[str, object] = {
        "sizes": ours.sizes,
        "growth": ours.growth,
        "gradient_ratio": ours.gradient_ratio,
        "addition": {"sizes": sums.sizes, "growth": sums.growth, "gradient_ratio": sums.gradient_ratio},
    }
    if not (math.isfinite(ours.growth) and math.isfinite(ours.gradient_ratio)):
        return [_drifts("fault", f"after {BLOCKS} blocks the signal or its gradient is 0 or not finite", measured)]
    signal, gradient = ours.beside(sums)
    measured |= {"block_growth": _ends(signal), "block_gradient": _ends(gradient)}
    findings = []
    if _beyond(signal.estimate, FORWARD):
        told = _told("the signal", ours.growth, sums.growth, signal)
        findings.append(_drifts("warning", told, measured))
    steep = _beyond(gradient.estimate, BACKWARD)
    if steep or gradient.estimate > NOTED:
        told = _told("the gradient, on its way back,", ours.gradient_ratio, sums.gradient_ratio, gradient)
        severity: Severity = "warning" if steep else "note"
        findings.append((_steep if gradient.estimate > 1 else _drifts)(severity, told, measured))
    what = (
        f"a block makes the signal {_each(ours.growth)} times as large and its gradient, on the way back, "
        f"{_each(ours.gradient_ratio)} times; addition in its place {_each(sums.growth)} and "
        f"{_each(sums.gradient_ratio)}"
    )
    return findings or [Finding(severity="ok", what=what, measured=measured)]


def _told(what: str, ours: float, sums: float, multiple: Interval) -> str:
    return (
        f"a block makes {what} {_each(ours)} times as large, {multiple.estimate:.2f} ({multiple.low:.2f} to "
        f"{multiple.high:.2f}) times what addition makes of it: {ours:.3g} times in {BLOCKS} blocks, and "
        f"{sums:.3g} times"
    )


def _each(growth: float) -> str:
    """One block's share of ten blocks' growth."""
    return f"{growth ** (1 / BLOCKS):.2f}"


def _drifts(severity: Severity, what: str, measured: dict[str, object]) -> Finding:
    return Finding(
        severity=severity,
        what=what,
        why="A signal that grows or fades with depth makes the first layers learn at another rate than the last.",
        do="Take the factor out of the fusion, or divide by what it adds; see the finding on output scale.",
        measured=measured,
    )


def _steep(severity: Severity, what: str, measured: dict[str, object]) -> Finding:
    return Finding(
        severity=severity,
        what=what,
        why="The first layers learn at another rate than the last, as in a stack without any skip, where it is 1.1 to "
        "1.2 times addition's.",
        do="Start with a flatter gate: with the weight of its last norm at 0.1, not 1, or with norm=layer, the paper's "
        "fusions come within 10% of addition. Else warm up and clip where there are many blocks.",
        measured=measured,
    )


def _beyond(growth: float, limit: float) -> bool:
    return not 1 / limit <= growth <= limit


def _ends(interval: Interval) -> list[float]:
    return [interval.estimate, interval.low, interval.high]


@dataclass(frozen=True)
class _Grown:
    """What came of some stacks: the signal's size before the first block and after each, and its gradient's ratio."""

    sizes_of_draws: list[list[float]]
    gradient_ratios: list[float]

    @classmethod
    def of(cls, travels: Sequence[tuple[list[float], float]]) -> _Grown:
        return cls([sizes for sizes, _ in travels], [ratio for _, ratio in travels])

    @property
    def sizes(self) -> list[float]:
        return [_middle([draw[block] for draw in self.sizes_of_draws]) for block in range(BLOCKS + 1)]

    @property
    def growths(self) -> list[float]:
        return [sizes[-1] / sizes[0] if sizes[0] else math.nan for sizes in self.sizes_of_draws]

    @property
    def growth(self) -> float:
        return _middle(self.growths)

    @property
    def gradient_ratio(self) -> float:
        return _middle(self.gradient_ratios)

    def beside(self, other: _Grown) -> tuple[Interval, Interval]:
        """A block's growth of the signal and of its gradient in multiples of another's, draw by draw."""
        both = ((self.growths, other.growths), (self.gradient_ratios, other.gradient_ratios))
        signal, gradient = (
            of_processes([(a / b) ** (1 / BLOCKS) for a, b in zip(mine, theirs, strict=True)]) for mine, theirs in both
        )
        assert signal is not None
        assert gradient is not None
        return signal, gradient


@cache
def _addition(channels: int, size: tuple[int, ...], batch: int) -> _Grown:
    maps = Subject(name="add", make=nn.Identity, channels=channels, size=size, batch=batch)
    return _Grown.of([_travel(_first_map(maps, draw), [operator.add] * BLOCKS, draw) for draw in range(STACKS)])


def _first_map(subject: Subject, seed: int) -> torch.Tensor:
    return subject.maps(seed=seed, count=1)[0].requires_grad_()


def _fusions(subject: Subject, seed: int) -> list[nn.Module]:
    return [subject.module(training=True, seed=100 * seed + block) for block in range(BLOCKS)]


def _travel(first: torch.Tensor, fusions: Sequence[Callable[..., object]], seed: int) -> tuple[list[float], float]:
    """The signal's size before the first block and after each, and its gradient's before the first against the last."""
    branches = [_branch(first.shape[1], first.ndim - 2, 100 * seed + block) for block in range(BLOCKS)]
    x, sizes = first, [rms(first)]
    for fusion, branch in zip(fusions, branches, strict=True):
        x = first_map(fusion(x.clone(), branch(x)))  # it may write into them: the state in eval tells that
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
