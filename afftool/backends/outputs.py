"""What one step of a case leaves behind, and whether two ways of running it leave the same.

Each tensor must agree with eager's within a tolerance for its dtype, relative to that tensor's largest value. Where
it does not, eager is not taken at its word: the same step in double precision decides, and a result that is about as
near to it as eager's own passes. So the rounding noise of a gradient that is zero in theory (a bias in front of a
batch norm) fails nobody, and a wrong small gradient is not hidden by a large one.

On CUDA eager itself multiplies float32 as TF32 by default, in convolutions. Where it did, that is the precision to be
held to. Results rounded to bfloat16 are refused still; products in bfloat16 whose error the rest of an inference step
shrinks below TF32's last bit are not told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from afftool.environment import float32_precisions
from afftool.errors import Rejected

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3, torch.float64: 1e-9}
AS_GOOD_AS_EAGER = 10.0
"""How many times eager's own rounding error a backend may be off."""
TF32_TOLERANCE = 2.0**-10
"""TF32's last bit. A result rounded to bfloat16 is off by at least twice as much where its values are largest."""
AS_GOOD_AS_TF32 = 4.0
"""What stands for `AS_GOOD_AS_EAGER` where eager used TF32. Kernels that truncate are up to 3 times as far off as those
that round, products in bfloat16 eight times; over a deep network truncation adds up, and can be as far off as they."""
TF32_NOISE = TF32_TOLERANCE / 4
"""What is left, relative to the largest value of the kind, of TF32's errors in a sum that cancels, as a mean does."""

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Outputs:
    """The tensors after one step, by kind (outputs, input gradients, parameter gradients, buffers) and name.

    `tf32` says that float32 was multiplied as TF32 in it, by the device and torch's settings at the time.
    """

    kinds: Mapping[str, Tensors]
    tf32: bool = False


def uses_tf32(device: torch.device) -> bool:
    """Whether torch's settings let float32 convolutions or matrix products on `device` use TF32's 10 mantissa bits.

    CUDA's convolutions do unless told otherwise.
    """
    return device.type == "cuda" and "tf32" in float32_precisions()


def compare(found: Outputs, eager: Outputs, precise: Callable[[], Outputs | None]) -> float:
    """The largest difference from eager, relative to the largest value of its kind.

    `precise` makes the same step in double precision, or returns None where the module cannot run so; it is called
    only if a tensor is out of tolerance. Raises `Rejected` on a mismatch.
    """
    worst, doubtful = 0.0, []
    for kind, expected in eager.kinds.items():
        actual = found.kinds.get(kind, {})
        if actual.keys() != expected.keys():
            odd = sorted(actual.keys() ^ expected.keys())
            raise Rejected(f"differs from eager: {kind} {', '.join(odd)} exist only in one of them", hint=_HINT)
        largest = max((_largest(tensor) for tensor in expected.values()), default=0.0)
        for name, reference in expected.items():
            if actual[name].shape != reference.shape:
                raise Rejected(
                    f"differs from eager: {kind} {name} has shape {tuple(actual[name].shape)}, "
                    f"eager's {tuple(reference.shape)}",
                    hint=_HINT,
                )
            difference = _difference(actual[name], reference)
            worst = max(worst, difference / largest if largest else (math.inf if difference else 0.0))
            if difference > _tolerance(reference, eager.tf32) * _largest(reference):
                doubtful.append((kind, name))
    if doubtful:
        _judge(doubtful, found, eager, precise())
    return worst


_HINT = "no time is kept for a wrong result; run it under eager, or report the compiler's mistake to PyTorch"


def _judge(doubtful: list[tuple[str, str]], found: Outputs, eager: Outputs, exact: Outputs | None) -> None:
    for kind, name in doubtful:
        actual, reference = found.kinds[kind][name], eager.kinds[kind][name]
        largest = max(_largest(tensor) for tensor in eager.kinds[kind].values())
        rounded = eager.tf32 and reference.dtype == torch.float32
        noise = torch.finfo(reference.dtype).eps * largest if reference.is_floating_point() else 0.0
        if exact is None:  # nothing to arbitrate: allow for rounding at the size of the kind
            off, allowed = _difference(actual, reference), TF32_TOLERANCE * largest if rounded else 1000 * noise
        else:
            truth = exact.kinds[kind][name]
            off = _difference(actual, truth)
            own_error = _difference(reference, truth)
            allowed = max(
                _tolerance(reference, eager.tf32) * _largest(truth),
                (AS_GOOD_AS_TF32 if rounded else AS_GOOD_AS_EAGER) * own_error if math.isfinite(own_error) else 0.0,
                TF32_NOISE * largest if rounded else noise,
            )
        if not off <= allowed:
            raise Rejected(
                f"differs from eager: {kind} {name} by {_difference(actual, reference):.3g} "
                f"where eager's largest value is {_largest(reference):.3g}",
                hint=_HINT,
            )


def _tolerance(reference: torch.Tensor, tf32: bool) -> float:
    return TF32_TOLERANCE if tf32 and reference.dtype == torch.float32 else TOLERANCE.get(reference.dtype, 0.0)


def _largest(tensor: torch.Tensor) -> float:
    finite = tensor.detach()[torch.isfinite(tensor)] if tensor.is_floating_point() else tensor.detach()
    return float(finite.abs().max()) if finite.numel() else 0.0


def _difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest absolute difference; equal infinities and NaNs in the same place are no difference."""
    if not a.numel():
        return 0.0
    wide = torch.complex128 if a.is_complex() else torch.float64
    a, b = a.detach().to(wide), b.detach().to(wide)
    same = (a == b) | (a.isnan() & b.isnan())
    gap = torch.where(same, torch.zeros((), dtype=torch.float64, device=a.device), (a - b).abs())
    return math.inf if bool(gap.isnan().any()) else float(gap.max())
