"""What one step of a case leaves behind, and whether two ways of running it leave the same.

Each element must agree with eager's within a tolerance for its dtype, relative to its tensor's largest value. Where one
does not, eager is not taken at its word. The same step in double precision decides first: what is about as near to it
as eager's own results passes, so the rounding noise of a gradient that is zero in theory (a bias in front of a batch
norm) fails nobody, and a wrong small gradient is not hidden by a large one. What is further off passes only where
eager itself jumps as far when its operators round otherwise (`afftool.backends.rounding`), element by element: a ReLU
whose input lies within a rounding of 0 fails nobody, and hides no fault beside it.

Where eager's step is not finite, what it overflows to says little about another backend, which may keep more digits
in between. There only elements count at which eager is right and the other is not.

On CUDA eager itself multiplies float32 as TF32 by default, in convolutions. Where it did, that is the precision to be
held to. Results rounded to bfloat16 are refused still; products in bfloat16 whose error the rest of an inference step
shrinks below TF32's last bit are not told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from afftool.environment import float32_precisions
from afftool.errors import Rejected

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3, torch.float64: 1e-9}
AS_GOOD_AS_EAGER = 10.0
"""How many times eager's own rounding error a backend may be off."""
ROUNDING = 30.0
"""Eager's own error is taken for rounding up to so many tolerances, or to one for the largest value of its kind: a
gradient that is zero in theory may be nothing else. What is further off has to be a jump."""
TF32_TOLERANCE = 2.0**-10
"""TF32's last bit. A result rounded to bfloat16 is off by at least twice as much where its values are largest."""
AS_GOOD_AS_TF32 = 4.0
"""What stands for `AS_GOOD_AS_EAGER` where eager used TF32. Kernels that truncate are up to 3 times as far off as those
that round, products in bfloat16 eight times; over a deep network truncation adds up, and can be as far off as they."""
TF32_NOISE = TF32_TOLERANCE / 4
"""What is left, relative to the largest value of the kind, of TF32's errors in a sum that cancels, as a mean does."""
JUMPS = 2.0
"""How many times as far as eager an element may jump: two kinks at once, each seen alone."""
STRAY = 0.001
"""The share of eager's own errors that is left out of its size, as kinks may be."""
SIMILAR = 1.5
"""How many times eager's share of values that are not finite another backend may have, where eager has any."""

Tensors = Mapping[str, torch.Tensor]
Jumps = dict[str, dict[str, torch.Tensor]]
"""How far each element of a step's results can jump, by kind and name."""


@dataclass(frozen=True)
class Outputs:
    """The tensors after one step, by kind (outputs, input gradients, parameter gradients, buffers) and name.

    `tf32` says that float32 was multiplied as TF32 in it, by the device and torch's settings at the time.
    """

    kinds: Mapping[str, Tensors]
    tf32: bool = False

    @property
    def nonfinite_share(self) -> float:
        """The share of the values of the outputs and the gradients that are infinite or NaN."""
        tensors = (given for kind, given in self.kinds.items() if kind != "buffer")
        return nonfinite_share([tensor for given in tensors for tensor in given.values()])


def nonfinite_share(tensors: Sequence[torch.Tensor]) -> float:
    """The share of the values of all these that are infinite or NaN."""
    total = sum(tensor.numel() for tensor in tensors)
    return sum(tensor.numel() - int(torch.isfinite(tensor).sum()) for tensor in tensors) / total if total else 0.0


@dataclass(frozen=True)
class Agreement:
    """How near a step's results are to eager's.

    `error` is the largest difference relative to the largest value of its kind, `rms_error` the difference's norm
    relative to eager's, in the kind where that is most, both over what is finite in both. `differing` of `elements`
    differ by more than rounding does. `fault` is what neither rounding nor eager's own jumps explain, in words.
    """

    error: float = 0.0
    rms_error: float = 0.0
    differing: int = 0
    elements: int = 0
    fault: str | None = None

    @property
    def differing_share(self) -> float:
        """The share of the elements that differ by more than rounding does."""
        return self.differing / self.elements if self.elements else 0.0


def uses_tf32(device: torch.device) -> bool:
    """Whether torch's settings let float32 convolutions or matrix products on `device` use TF32's 10 mantissa bits.

    CUDA's convolutions do unless told otherwise.
    """
    return device.type == "cuda" and "tf32" in float32_precisions()


def _unknown() -> None:
    return None


def compare(found: Outputs, eager: Outputs, precise: Callable[[], Outputs | None]) -> float:
    """The largest difference from eager, relative to the largest value of its kind. Raises `Rejected` for a fault."""
    found_near = agree(found, eager, precise)
    if found_near.fault:
        raise Rejected(f"differs from eager: {found_near.fault}", hint=NO_TIME)
    return found_near.error


NO_TIME = "no time is kept for a wrong result; run it under eager"


def agree(
    found: Outputs,
    eager: Outputs,
    precise: Callable[[], Outputs | None],
    jumps: Callable[[], Jumps | None] = _unknown,
) -> Agreement:
    """How near `found` is to eager, and whether it is further off than rounding and jumps explain.

    `precise` makes the same step in double precision, or returns None where the module cannot run so; `jumps` tells
    how far eager itself jumps. Each is called only if a tensor is out of tolerance, `jumps` if rounding is no reason.
    """
    doubtful: list[_Doubt] = []
    error = rms_error = 0.0
    elements = 0
    for kind, expected in eager.kinds.items():
        actual = found.kinds.get(kind, {})
        if fault := _unlike(kind, actual, expected):
            return Agreement(math.inf, math.inf, elements, elements, fault)
        largest = max((_largest(tensor) for tensor in expected.values()), default=0.0)
        squares = [0.0, 0.0]
        for name, reference in expected.items():
            difference = gap(actual[name], reference)
            elements += difference.numel()
            worst = _largest(difference)
            error = max(error, worst / largest if largest else (math.inf if worst else 0.0))
            squares[0] += _sum_of_squares(difference)
            squares[1] += _sum_of_squares(reference)
            beyond = difference > _tolerance(reference, eager.tf32) * _largest(reference)
            if bool(beyond.any()):
                doubtful.append(_Doubt(kind, name, actual[name], reference, largest, difference, beyond))
        if squares[0]:
            rms_error = max(rms_error, math.sqrt(squares[0] / squares[1]) if squares[1] else math.inf)
    differing, fault = _judge(doubtful, found, eager, precise, jumps) if doubtful else (0, None)
    return Agreement(error, rms_error, differing, elements, fault)


@dataclass
class _Doubt:
    """A tensor with elements out of tolerance, those that nothing explains yet; `largest` is its kind's."""

    kind: str
    name: str
    actual: torch.Tensor
    reference: torch.Tensor
    largest: float
    difference: torch.Tensor
    beyond: torch.Tensor

    @property
    def open(self) -> int:
        """How many elements nothing explains yet."""
        return int(self.beyond.sum())


def _unlike(kind: str, actual: Tensors, expected: Tensors) -> str | None:
    """What makes the tensors of a kind incomparable, if anything does."""
    if actual.keys() != expected.keys():
        return f"{kind} {', '.join(sorted(actual.keys() ^ expected.keys()))} exist only in one of them"
    for name, reference in expected.items():
        if actual[name].shape != reference.shape:
            return f"{kind} {name} has shape {tuple(actual[name].shape)}, eager's {tuple(reference.shape)}"
    return None


def _judge(
    doubtful: list[_Doubt],
    found: Outputs,
    eager: Outputs,
    precise: Callable[[], Outputs | None],
    jumps: Callable[[], Jumps | None],
) -> tuple[int, str | None]:
    """How many elements differ by more than rounding, and the first fault that jumps do not explain."""
    exact = precise()
    for doubt in doubtful:
        doubt.beyond &= ~_rounding(doubt, eager, exact.kinds[doubt.kind][doubt.name] if exact else None)
    share = eager.nonfinite_share
    if share:
        forgiven = found.nonfinite_share <= SIMILAR * share
        for doubt in doubtful:
            doubt.beyond &= ~_overflown(doubt, exact.kinds[doubt.kind][doubt.name] if exact else None, forgiven)
    differing = sum(doubt.open for doubt in doubtful)
    if differing and (known := jumps()):
        for doubt in doubtful:
            limit = _tolerance(doubt.reference, eager.tf32) * _largest(doubt.reference)
            doubt.beyond &= doubt.difference > limit + JUMPS * known[doubt.kind][doubt.name]
    return differing, next((_said(doubt) for doubt in doubtful if doubt.open), None)


def _said(doubt: _Doubt) -> str:
    where = f"{doubt.kind} {doubt.name}"
    of_all = f"{doubt.open:,} of {doubt.beyond.numel():,} elements"
    odd = doubt.beyond & ~torch.isfinite(doubt.actual) & torch.isfinite(doubt.reference)
    if bool(odd.any()):
        return f"{where} is infinite or NaN in {int(odd.sum()):,} of {odd.numel():,} elements where eager's is finite"
    worst = float(doubt.difference[doubt.beyond].max())
    return f"{where} by {worst:.3g} where eager's largest value is {_largest(doubt.reference):.3g}, in {of_all}"


def _rounding(doubt: _Doubt, eager: Outputs, truth: torch.Tensor | None) -> torch.Tensor:
    """At which elements the difference is no more than rounding, as the truth in double precision tells."""
    reference = doubt.reference
    rounded = eager.tf32 and reference.dtype == torch.float32
    noise = torch.finfo(reference.dtype).eps * doubt.largest if reference.is_floating_point() else 0.0
    if truth is None:  # nothing to arbitrate: allow for rounding at the size of the kind
        return doubt.difference <= (TF32_TOLERANCE * doubt.largest if rounded else 1000 * noise)
    tolerance = _tolerance(reference, eager.tf32)
    own_error = (AS_GOOD_AS_TF32 if rounded else AS_GOOD_AS_EAGER) * _size(gap(reference, truth))
    allowed = max(
        tolerance * _largest(truth),
        min(own_error, tolerance * max(ROUNDING * _largest(truth), doubt.largest)),
        TF32_NOISE * doubt.largest if rounded else noise,
    )
    return gap(doubt.actual, truth) <= allowed


def _overflown(doubt: _Doubt, truth: torch.Tensor | None, forgiven: bool) -> torch.Tensor:
    """At which elements eager, whose step is not finite, blames nobody; `forgiven` are other such values."""
    eager_odd, odd = ~torch.isfinite(doubt.reference), ~torch.isfinite(doubt.actual)
    excused = eager_odd | odd if forgiven else eager_odd
    if truth is None:
        return excused
    right = gap(doubt.reference, truth) <= _tolerance(doubt.reference, tf32=False) * _largest(truth)
    return excused | (~right & ~odd)


def _size(errors: torch.Tensor) -> float:
    """The size of finite errors, but for the few that are largest; 0 where there are none."""
    known = _finite(errors).flatten()
    if not known.numel():
        return 0.0
    return float(known.kthvalue(known.numel() - int(STRAY * known.numel())).values)


def _tolerance(reference: torch.Tensor, tf32: bool) -> float:
    return TF32_TOLERANCE if tf32 and reference.dtype == torch.float32 else TOLERANCE.get(reference.dtype, 0.0)


def _finite(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach()[torch.isfinite(tensor)]


def _largest(tensor: torch.Tensor) -> float:
    finite = _finite(tensor)
    return float(finite.abs().max()) if finite.numel() else 0.0


def _sum_of_squares(tensor: torch.Tensor) -> float:
    return float(_finite(tensor).abs().double().square().sum())


def gap(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The absolute difference of each element; equal infinities and NaNs in the same place are none."""
    wide = torch.complex128 if a.is_complex() else torch.float64
    a, b = a.detach().to(wide), b.detach().to(wide)
    same = (a == b) | (a.isnan() & b.isnan())
    zero, infinite = (torch.tensor(value, dtype=torch.float64, device=a.device) for value in (0.0, math.inf))
    difference = torch.where(same, zero, (a - b).abs())
    return torch.where(difference.isnan(), infinite, difference)
