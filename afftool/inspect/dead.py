"""Parameters that nothing can ever train."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from afftool import units
from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject, call

DRAWS = 3
"""Inputs and weights tried: a gradient that is 0 in all of them is 0 for a reason."""

UNUSED = (
    "Call the branch where it was meant to be called, or remove it. Distributed training would also stop on unused "
)
UNUSED += "parameters."
ZERO = "Look for a gate that is saturated (scale its logits down, or norm them) or for a factor of 0."


def check(subject: Subject) -> list[Finding]:
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
        do="Look for a square root, a norm or a logarithm at 0, and add a small constant under it.",
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
