"""Parameters that nothing can ever train."""

from __future__ import annotations

import torch
from torch import nn

from afftool import units
from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject, call

NAME = "dead parameters"
DRAWS = 3
"""Inputs and weights tried: a gradient that is 0 in all of them is 0 for a reason."""


def check(subject: Subject) -> list[Finding]:
    """Which parameters get no gradient, or one that is exactly 0, whatever the inputs and weights."""
    reached: dict[str, bool] = {}
    sizes: dict[str, int] = {}
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
            sizes[name] = parameter.numel()
            alive = parameter.grad is not None and bool((parameter.grad != 0).any())
            reached[name] = reached.get(name, False) or alive or not parameter.requires_grad
    dead = [name for name, alive in reached.items() if not alive]
    total = sum(sizes.values())
    if not dead:
        what = f"a gradient reaches all {units.count(total)} parameters" if total else "it has no parameters"
        return [Finding(check=NAME, severity="ok", what=what, measured={"params": total, "dead_params": 0})]
    lost = sum(sizes[name] for name in dead)
    uncalled = [n for n, m in module.named_modules() if n and n not in called and any(True for _ in m.parameters())]
    groups = _outermost(uncalled, dead)
    never = [g for g in groups if g in uncalled]
    because = f"{', '.join(never)} is built and never called" if never else f"{', '.join(groups)} is not in the output"
    return [
        Finding(
            check=NAME,
            severity="fault",
            what=f"{units.count(lost)} of {units.count(total)} parameters are dead: {because}",
            why="No gradient reaches them: they keep their first values, are counted and saved, and do nothing.",
            do="Call the branch where it was meant to be called, or remove it. Distributed training "
            "would also stop on unused parameters.",
            measured={"params": total, "dead_params": lost, "dead": dead, "never_called": never},
        )
    ]


def _stir(module: nn.Module, seed: int) -> None:
    """Move every parameter off its first value, so that one initialised to 0 does not make others look dead."""
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def _outermost(uncalled: list[str], dead: list[str]) -> list[str]:
    """The dead parameters by what holds them: a module that is never called stands for all that is in it."""
    groups: list[str] = []
    for name in dead:
        holders = [u for u in uncalled if name.startswith(u + ".")]
        group = min(holders, key=len) if holders else name
        if group not in groups:
            groups.append(group)
    return groups
