"""In 16 bits: whole, as it is served, and under autocast, as it is trained."""

from __future__ import annotations

import contextlib
import math
import re
from dataclasses import dataclass

import torch

from afftool.backends.outputs import nonfinite_share
from afftool.failure import Failure
from afftool.inspect.finding import Finding
from afftool.inspect.subject import RAISED, SAME, SEED, Subject, as_given, call, dtype_name, rms
from afftool.words import all_of


@dataclass(frozen=True)
class _Way:
    """A way to run in 16 bits."""

    spoken: str
    dtype: torch.dtype
    autocast: bool

    @property
    def near(self) -> float:
        """How far its output may be from float32's, relative and in root mean square: `ROUNDINGS` of the number's."""
        return ROUNDINGS * torch.finfo(self.dtype).eps / 2

    def run(self, subject: Subject, *, training: bool) -> tuple[torch.Tensor, float]:
        """The output, and what share of its values and in training of its gradients is infinite or NaN.

        Raises what the module raises.
        """
        module, maps = subject.module(training=training), [x.to(self.dtype) for x in subject.maps()]
        if self.autocast:
            maps = [x.float() for x in maps]
        else:
            module = module.to(self.dtype)
        leaves = maps if training else []
        maps = as_given(leaves) if training else maps
        cast = torch.autocast("cpu", self.dtype) if self.autocast else contextlib.nullcontext()
        with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(training):
            torch.manual_seed(SEED)
            with cast:
                out = call(module, maps)
            if training and out.requires_grad:
                generator = torch.Generator().manual_seed(SEED)
                out.backward(torch.randn(out.shape, generator=generator).to(out.dtype))  # type: ignore[no-untyped-call]
        gradients = [x.grad for x in (*leaves, *module.parameters()) if x.grad is not None]
        return out.detach(), nonfinite_share([out.detach(), *gradients])


ROUNDINGS = 10
"""Of the largest error of one rounding, 0.4% in bfloat16 and 0.05% in float16; ten are 3.9% and 0.49%.

The whole catalog stays below one, and 175 of 176 random modules below one and a half. The last is 18 off: it norms
what hardly varies.
"""
WAYS = (
    _Way("in bfloat16", torch.bfloat16, False),
    _Way("in float16", torch.float16, False),
    _Way("under autocast to bfloat16", torch.bfloat16, True),
)

_WIDTHS = re.compile(r"(c10::)?(BFloat16|Half|bfloat16|float16)")
"""The same mistake is told of once, by its first reason."""


def sixteen_bits(subject: Subject) -> list[Finding]:
    """Whether it runs in bfloat16, float16 and under autocast, in eval and in training, and how near to float32."""
    trains = _trains(subject)
    steady = _is_steady(subject)
    fails: dict[str, list[str]] = {}
    lacking: list[Finding] = []
    far: list[str] = []
    other: list[str] = []
    fine: list[str] = []
    differences: dict[str, float] = {}
    shares: dict[str, float] = {}
    for way in WAYS:
        try:
            out, shares[way.spoken] = way.run(subject, training=False)
            if trains:
                _, shares[f"{way.spoken} in training"] = way.run(subject, training=True)
        except RAISED as error:
            reason = Failure.of(error).reason
            if "not implemented for 'Half'" in reason:  # of the CPU, not of the module
                lacking.append(_lacking(way.spoken, reason))
            else:
                like = (known for known in fails if _WIDTHS.sub("", known) == _WIDTHS.sub("", reason))
                fails.setdefault(next(like, reason), []).append(way.spoken)
            continue
        if not way.autocast and out.dtype != way.dtype:
            other.append(f"{dtype_name(way.dtype)} maps give a {dtype_name(out.dtype)} one")
            continue
        difference = _difference(subject, way, out) if steady else 0.0
        differences[way.spoken] = difference
        if math.isfinite(difference) and not difference <= way.near:
            far.append(f"{way.spoken} its output is {difference:.1%} off float32's")
        else:
            fine.append(way.spoken)
    measured = {
        "differences": differences,
        "fails": {reason: list(ways) for reason, ways in fails.items()},
        "nonfinite_shares": shares,
    }
    odd = [f"{share:.2%} {spoken}" for spoken, share in shares.items() if share]
    findings = [_not_finite(odd, measured)] if odd else []
    findings += [_fails(fails, measured)] if fails else []
    findings += [_far(far, measured)] if far else []
    findings += [_promotes(other, measured)] if other else []
    findings += lacking
    if findings:
        return findings
    modes = ", in eval and in training" if trains else ""
    apart = f"; its output is {max(differences.values()):.2%} off float32's at most" if steady else ""
    return [Finding(severity="ok", what=f"runs {all_of(fine)}{modes}{apart}", measured=measured)]


def _trains(subject: Subject) -> bool:
    try:
        call(subject.module(training=True), as_given(subject.maps()))
    except RAISED:  # told by the check of the output
        return False
    return True


def _is_steady(subject: Subject) -> bool:
    """Whether float32 gives the same twice; the check of the state says where it does not."""
    with torch.no_grad():
        first, second = (call(subject.module(), subject.maps()) for _ in range(2))
    return rms(first - second) <= SAME * rms(first)


def _difference(subject: Subject, way: _Way, out: torch.Tensor) -> float:
    """From float32's output of the same, rounded, maps."""
    with torch.no_grad():
        whole = call(subject.module(), [x.to(way.dtype).float() for x in subject.maps()])
    return rms(out.double() - whole.double()) / (rms(whole) or 1.0)


def _not_finite(odd: list[str], measured: dict[str, object]) -> Finding:
    return Finding(
        severity="fault",
        what=f"in 16 bits its outputs and gradients are not finite: {', '.join(odd)}",
        why="float16 ends at 65,504 and has nothing below 6e-8: a sum, a square or an exp leaves it first, and one "
        "infinity or NaN spreads through a network in one step.",
        do="Work out sums, squares and exp in float32 (x.float()), or subtract the largest before an exp.",
        measured=measured,
    )


def _fails(fails: dict[str, list[str]], measured: dict[str, object]) -> Finding:
    told = "; ".join(f"{all_of(ways)}: {reason}" for reason, ways in fails.items())
    return Finding(
        severity="warning",
        what=f"does not run {told}",
        why="Most networks are trained under autocast and served in 16 bits; this one stops there.",
        do="Create constants and buffers with the input's dtype (torch.zeros(..., dtype=x.dtype), x.new_zeros), and "
        "cast what must stay float32 there and back.",
        measured=measured,
    )


def _far(far: list[str], measured: dict[str, object]) -> Finding:
    return Finding(
        severity="warning",
        what="; ".join(far),
        why="Trained or served in 16 bits it computes something else: 16 bits end at 65504 (float16) or after three "
        "digits (bfloat16).",
        do="Compute sums over many positions, exponentials and squares in float32: x.float(), and back.",
        measured=measured,
    )


def _promotes(other: list[str], measured: dict[str, object]) -> Finding:
    return Finding(
        severity="warning",
        what="; ".join(other),
        why="Whatever comes next runs in another precision than was asked for, or stops.",
        do="Create constants with the input's dtype.",
        measured=measured,
    )


def _lacking(way: str, reason: str) -> Finding:
    return Finding(
        severity="unknown",
        what=f"{way} it could not be looked at: this CPU lacks the operator ({reason})",
        measured={"lacks": reason},
    )
