"""What a gradient reaches: every parameter, and both inputs."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field

import torch
from torch import nn

from afftool import units
from afftool.inspect.finding import Finding
from afftool.inspect.sizes import Size, at_size, far_sizes, is_within, other_sizes, outermost, spoken, spoken_list
from afftool.inspect.subject import EXACT, RAISED, Subject, as_given, call, precise, rms
from afftool.measure.cost.reading import input_names

DRAWS = 3
"""Inputs and weights tried: a gradient that is 0 in all of them is 0 for a reason."""

UNUSED = (
    "Call the branch where it was meant to be called, or remove it. Distributed training would also stop on unused "
    "parameters."
)
ROOT = "Look for a square root, a norm or a logarithm at 0, and add a small constant under it."
ZERO = "Look for a gate that is saturated (scale its logits down, or norm them) or for a factor of 0."


@dataclass(frozen=True, kw_only=True)
class _Reached:
    """What the gradients of some draws reached at one size, and which modules were called."""

    module: nn.Module
    used: set[str] = field(default_factory=set)
    """Parameters in the output."""
    alive: set[str] = field(default_factory=set)
    """Those whose gradient was not 0 each time."""
    called: set[str] = field(default_factory=set)
    undefined: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, subject: Subject) -> _Reached:
        found = cls(module=subject.module(training=True))
        for draw in range(DRAWS):
            module = subject.module(training=True, seed=draw)
            _stir(module, draw)
            handles = [
                m.register_forward_hook(lambda *_, name=n: found.called.add(name)) for n, m in module.named_modules()
            ]
            out = call(module, subject.maps(seed=draw))
            weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(draw))
            if out.requires_grad:
                (out * weights).sum().backward()  # type: ignore[no-untyped-call]
            for handle in handles:
                handle.remove()
            for name, parameter in module.named_parameters():
                found._look(name, parameter)
        return found

    def _look(self, name: str, parameter: nn.Parameter) -> None:
        gradient = parameter.grad
        if gradient is not None or not parameter.requires_grad:
            self.used.add(name)
        if not parameter.requires_grad or (gradient is not None and bool((gradient != 0).any())):
            self.alive.add(name)
        if gradient is not None and not bool(torch.isfinite(gradient).all()) and name not in self.undefined:
            self.undefined.append(name)


def dead_parameters(subject: Subject) -> list[Finding]:
    """Which parameters get no gradient, or one that is exactly 0, whatever the inputs and weights.

    What is dead at the size asked for is looked for at others: dead is what lives at none of them.
    """
    here = _Reached.of(subject)
    lengths = {name: parameter.numel() for name, parameter in here.module.named_parameters()}
    total = sum(lengths.values())
    dead = [name for name in lengths if name not in here.alive]
    findings = [_undefined(here.undefined)] if here.undefined else []
    if not dead and not here.undefined:
        what = f"a gradient reaches all {units.count(total)} parameters" if total else "it has no parameters"
        findings.append(Finding(severity="ok", what=what, measured={"params": total, "dead_params": 0}))
    elsewhere = _elsewhere(subject, set(dead)) if dead else {}
    lives = {name: [size for size, found in elsewhere.items() if name in found.alive] for name in dead}
    for names, somewhere in (([n for n in dead if not lives[n]], False), ([n for n in dead if lives[n]], True)):
        if not names:
            continue
        measured: dict[str, object] = {
            "params": total,
            "dead_params": sum(lengths[name] for name in names),
            "dead": names,
            "sizes": [list(size) for size in (subject.size, *elsewhere)],
        }
        if somewhere:
            findings.append(_idle(subject.size, here, elsewhere, {name: lives[name] for name in names}, measured))
        else:
            absent, zero = [n for n in names if n not in here.used], [n for n in names if n in here.used]
            called = here.called.union(*(found.called for found in elsewhere.values()))
            findings.append(_dead(here.module, called, _called_in_eval(subject), absent, zero, measured))
    return findings


def _elsewhere(subject: Subject, dead: set[str]) -> dict[Size, _Reached]:
    """The same at the other sizes at which it runs, and at far ones while some of the `dead` live at none."""
    found: dict[Size, _Reached] = {}
    for size in (*other_sizes(subject), *far_sizes(subject)):
        far = size in far_sizes(subject)
        if far and dead <= set().union(*(reached.alive for reached in found.values())):
            break
        with contextlib.suppress(*RAISED):  # told by the check of the sizes
            found[size] = _Reached.of(at_size(subject, size, min(subject.batch, 2) if far else None))
    return found


def _called_in_eval(subject: Subject) -> set[str]:
    module, called = subject.module(), set[str]()
    for name, part in module.named_modules():
        part.register_forward_hook(lambda *_, name=name: called.add(name))
    with contextlib.suppress(*RAISED), torch.no_grad():
        call(module, subject.maps())
    return called


def _idle(
    asked: Size,
    here: _Reached,
    elsewhere: dict[Size, _Reached],
    lives: dict[str, list[Size]],
    measured: dict[str, object],
) -> Finding:
    """What is dead at the size asked for and lives at others; `lives` says where."""
    holders = [
        n for n, m in here.module.named_modules() if n and n not in here.called and any(True for _ in m.parameters())
    ]
    told = []
    for group in outermost(holders, list(lives)):
        where = next(sizes for name, sizes in lives.items() if name == group or name.startswith(f"{group}."))
        if group in holders:
            state, then = "not called", "is"
        elif group not in here.used:
            state, then = "not in the output", "is"
        else:
            state, then = "in the output with a gradient of exactly 0", "has one"
        told.append(f"{group} is {state} at this size ({spoken(asked)}); it {then} at {spoken_list(where)}")
    return Finding(
        severity="warning",
        what=f"{units.count(measured['dead_params'])} of {units.count(measured['params'])} parameters get no "  # type: ignore[arg-type]
        f"gradient at {spoken(asked)}: {'; '.join(told)}",
        why="Trained at this size alone they keep their first values, and are met with them at another.",
        do="Train on all sizes that it will meet, or take one path for all. Distributed training needs "
        "find_unused_parameters=True.",
        measured=measured | {"alive_at": {name: [list(size) for size in sizes] for name, sizes in lives.items()}},
    )


def _dead(
    module: nn.Module,
    called: set[str],
    in_eval: set[str],
    absent: list[str],
    zero: list[str],
    measured: dict[str, object],
) -> Finding:
    """`called` are modules in training, `in_eval` in eval; `absent` and `zero` parameters.

    Absent ones are not in the output; the others are, and have a gradient of exactly 0.
    """
    uncalled = [n for n, m in module.named_modules() if n and n not in called and any(True for _ in m.parameters())]
    groups = outermost(uncalled, absent)
    never = [g for g in groups if g in uncalled and g not in in_eval]
    untrained = [g for g in groups if g in uncalled and g in in_eval]
    unused = [g for g in groups if g not in uncalled]
    wholly = [n for n, m in module.named_modules() if n and is_within(n, m, zero)]
    stuck = outermost(wholly, zero)
    reasons = [f"{_list(never)} built and never called"] if never else []
    reasons += [f"{_list(untrained)} called in eval and not in training"] if untrained else []
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


def _list(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


PROBES = 4
IGNORED = 1e-9
"""A share of the squared sensitivity below this is rounding: that of an input of the catalog is 0.2 or more."""


def x_and_y(subject: Subject) -> list[Finding]:
    """The change by swapping the first two inputs, and each input's share of the output's sensitivity."""
    make, maps = precise(subject)
    lone = subject.uneven or subject.inputs < 2
    with torch.no_grad():
        plain = call(make(), [x.clone() for x in maps])
        # maps of unequal shapes have one order only
        swapped = plain if lone else call(make(), [x.clone() for x in (maps[1], maps[0], *maps[2:])])
    change = rms(plain - swapped) / (rms(plain) or 1.0)
    leaves = [x.clone() for x in maps]
    out = call(make(), as_given(leaves))
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
    names = input_names(len(leaves))
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
    told = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))
    if lone:
        what = f"the output depends on all of them (sensitivity: {told})"
        if len(leaves) == 1:
            what = "it takes one map, and its output depends on it"
        return [Finding(severity="ok", what=what, measured=measured)]
    if change <= EXACT:
        what = f"symmetric: swapping the inputs changes nothing (sensitivity: {told})"
        return [Finding(severity="ok", what=what, measured=measured)]
    return [
        Finding(
            severity="note",
            what=f"not symmetric: swapping the inputs changes the output by {change:.0%} (sensitivity: {told})",
            why="A checkpoint trained with one order gives other results with the other, and nothing fails.",
            do="Keep to one order: by convention y has the larger receptive field (the residual, the 5x5 branch, the "
            "higher level).",
            measured=measured,
        )
    ]
