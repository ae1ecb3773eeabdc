"""What a gradient reaches: every parameter, and both inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from afftool import units
from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject, call, precise, rms

DRAWS = 3
"""Inputs and weights tried: a gradient that is 0 in all of them is 0 for a reason."""

UNUSED = (
    "Call the branch where it was meant to be called, or remove it. Distributed training would also stop on unused "
    "parameters."
)
ROOT = "Look for a square root, a norm or a logarithm at 0, and add a small constant under it."
ZERO = "Look for a gate that is saturated (scale its logits down, or norm them) or for a factor of 0."


def dead_parameters(subject: Subject) -> list[Finding]:
    """Which parameters get no gradient, or one that is exactly 0, whatever the inputs and weights."""
    used: set[str] = set()
    alive: set[str] = set()
    undefined: list[str] = []
    called: set[str] = set()
    for draw in range(DRAWS):
        module = subject.module(training=True, seed=draw)
        _stir(module, draw)
        handles = [m.register_forward_hook(lambda *_, name=n: called.add(name)) for n, m in module.named_modules()]
        out = call(module, subject.maps(seed=draw))
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(draw))
        if out.requires_grad:
            (out * weights).sum().backward()  # type: ignore[no-untyped-call]
        for handle in handles:
            handle.remove()
        for name, parameter in module.named_parameters():
            if parameter.grad is not None or not parameter.requires_grad:
                used.add(name)
            if not parameter.requires_grad or (parameter.grad is not None and bool((parameter.grad != 0).any())):
                alive.add(name)
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()) and name not in undefined:
                undefined.append(name)
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    total = sum(sizes.values())
    dead = [name for name in sizes if name not in alive]
    measured: dict[str, object] = {"params": total, "dead_params": sum(sizes[name] for name in dead)}
    findings = [_undefined(undefined)] if undefined else []
    if not dead and not undefined:
        what = f"a gradient reaches all {units.count(total)} parameters" if total else "it has no parameters"
        findings.append(Finding(severity="ok", what=what, measured=measured))
    if dead:
        absent, zero = [n for n in dead if n not in used], [n for n in dead if n in used]
        findings.append(_dead(module, called, absent, zero, measured | {"dead": dead}))
    return findings


def _dead(
    module: nn.Module, called: set[str], absent: list[str], zero: list[str], measured: dict[str, object]
) -> Finding:
    """`absent` are not in the output, `zero` are, and have a gradient of exactly 0."""
    uncalled = [n for n, m in module.named_modules() if n and n not in called and any(True for _ in m.parameters())]
    groups = _outermost(uncalled, absent)
    never = [g for g in groups if g in uncalled]
    unused = [g for g in groups if g not in uncalled]
    wholly = [n for n, m in module.named_modules() if n and _all_in(zero, n, m)]
    stuck = _outermost(wholly, zero)
    reasons = [f"{_list(never)} built and never called"] if never else []
    reasons += [f"{_list(unused)} not in the output"] if unused else []
    reasons += [f"{_list(stuck)} in the output with a gradient of exactly 0"] if stuck else []
    why = "They keep their first values, are counted and saved, and do nothing."
    if not absent:
        why = "A saturated gate or a factor of 0 lets no gradient through: they keep their first values."
    return Finding(
        severity="fault",
        what=f"{units.count(measured['dead_params'])} of {units.count(measured['params'])} parameters are dead: "  # type: ignore[arg-type]
        + "; ".join(reasons),
        why=why,
        do=" ".join([UNUSED] * bool(absent) + [ZERO] * bool(zero)),
        measured=measured | {"never_called": never, "not_in_output": absent, "zero_gradient": zero},
    )


def _undefined(names: list[str]) -> Finding:
    return Finding(
        severity="fault",
        what=f"the gradient of {', '.join(names)} is not finite, though the output is",
        why="The first step of a training writes NaN into them.",
        do=ROOT,
        measured={"gradient_not_finite": names},
    )


def _stir(module: nn.Module, seed: int) -> None:
    """Move every parameter off its first value, so that one initialised to 0 does not make others look dead."""
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def _all_in(names: Iterable[str], prefix: str, module: nn.Module) -> bool:
    held = [f"{prefix}.{name}" for name, _ in module.named_parameters()]
    return bool(held) and set(held) <= set(names)


def _outermost(holders: list[str], names: list[str]) -> list[str]:
    """Parameters by what holds them: a module among the `holders` stands for all that is in it."""
    groups: list[str] = []
    for name in names:
        around = [holder for holder in holders if name.startswith(holder + ".")]
        group = min(around, key=len) if around else name
        if group not in groups:
            groups.append(group)
    return groups


def _list(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


PROBES = 4
IGNORED = 1e-9
"""A share of the sensitivity below this is rounding."""


def x_and_y(subject: Subject) -> list[Finding]:
    """The change by swapping the first two inputs, and each input's share of the output's sensitivity."""
    make, maps = precise(subject)
    lone = subject.uneven or subject.inputs < 2
    with torch.no_grad():
        plain = call(make(), [x.clone() for x in maps])
        # maps of unequal shapes have one order only
        swapped = plain if lone else call(make(), [x.clone() for x in (maps[1], maps[0], *maps[2:])])
    change = rms(plain - swapped) / (rms(plain) or 1.0)
    leaves = [x.clone().requires_grad_() for x in maps]
    out = call(make(), [x.clone() for x in leaves])
    # The gradient of the output in a random direction has, squared and on average, the size of the whole Jacobian; a
    # few directions tell each input's share of it, where the Jacobian itself would take a backward pass an element.
    pulls = [0.0] * len(leaves)
    for probe in range(PROBES):
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(probe), dtype=out.dtype)
        gradients = torch.autograd.grad(out, leaves, weights, retain_graph=True, allow_unused=True)
        for i, gradient in enumerate(gradients):
            pulls[i] += rms(gradient) ** 2 if gradient is not None else 0.0
    whole = sum(pulls) or 1.0
    shares = [pull / whole for pull in pulls]
    measured = {"change_by_swapping": None if lone else change, "sensitivity_shares": shares}
    if not all(math.isfinite(value) for value in (change, *shares)):
        return [
            Finding(
                severity="fault",
                what="the gradient of the inputs is not finite, though the output is",
                why="The first step of a training writes NaN into every layer before.",
                do=ROOT,
                measured=measured,
            )
        ]
    names = ["x", "y", *(f"input {i + 1}" for i in range(2, len(leaves)))][: len(leaves)]
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
    if lone:
        return [
            Finding(severity="ok", what=f"the output depends on all of it (sensitivity: {spoken})", measured=measured)
        ]
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
