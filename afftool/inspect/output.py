"""Whether it fuses at all: one finite feature map of the inputs' shape and dtype, through which can be trained."""

from __future__ import annotations

import torch

from afftool.failure import Failure
from afftool.inspect.finding import Finding
from afftool.inspect.subject import RAISED, Subject, call, first_map


def check(subject: Subject) -> list[Finding]:
    """What it returns in eval, and whether that trains. Raises what the module raises in eval."""
    maps = subject.maps()
    with torch.no_grad():
        given = subject.module()(*maps)
    out = first_map(given)
    findings = _one_map(given) + _like_its_inputs(out, maps[0])
    known = [f.measured for f in findings]
    # What is not finite in eval need not be told of training too.
    findings += [f for f in _training(subject) if f.measured != {"finite": False} or f.measured not in known]
    if findings:
        return findings
    measured = {"shape": list(out.shape), "dtype": _name(out.dtype)}
    return [Finding(severity="ok", what=f"one finite map of shape {tuple(out.shape)}", measured=measured)]


def _one_map(given: object) -> list[Finding]:
    if isinstance(given, torch.Tensor):
        return []
    return [
        Finding(
            severity="fault",
            what=f"it returns a {type(given).__name__}, not one feature map; what follows is about the first map in it",
            why="A fusion takes the place of an addition: what comes next expects one tensor.",
            do="Return the fused map alone, and keep what else is of interest as an attribute.",
            measured={"returns": type(given).__name__},
        )
    ]


def _like_its_inputs(out: torch.Tensor, x: torch.Tensor) -> list[Finding]:
    findings = []
    measured = {"shape": list(out.shape), "dtype": _name(out.dtype)}
    if out.shape != x.shape:
        findings.append(
            Finding(
                severity="fault",
                what=f"maps of shape {tuple(x.shape)} give one of shape {tuple(out.shape)}",
                why="A fusion takes the place of an addition, so its output must have the shape of its inputs.",
                do="Project or resize inside, or outside before fusing.",
                measured=measured,
            )
        )
    if not bool(torch.isfinite(out).all()):
        findings.append(_not_finite("the output of finite inputs is not finite"))
    if out.dtype != x.dtype:
        findings.append(
            Finding(
                severity="warning",
                what=f"{x.dtype} maps give a {out.dtype} one",
                why="Whatever comes next runs in another precision than was asked for.",
                do="Create constants with the input's dtype.",
                measured=measured,
            )
        )
    return findings


def _training(subject: Subject) -> list[Finding]:
    """Whether it runs in training, and whether its output still hangs on what came in."""
    leaves = [x.requires_grad_() for x in subject.maps()]
    try:
        out = call(subject.module(training=True), [x.clone() for x in leaves])
    except RAISED as error:
        return [
            Finding(
                severity="fault",
                what=f"it runs in eval and fails in training: {Failure.of(error).reason}",
                why="It can be used, but never trained.",
                do="Call it after module.train() to see the whole traceback.",
                measured={"error": type(error).__name__, "trainable": False},
            )
        ]
    if not out.requires_grad:
        return [
            Finding(
                severity="fault",
                what="its output is cut from autograd: nothing can be trained through it",
                why="Neither its own parameters nor the layers before it get a gradient, and nothing fails.",
                do="Look for .detach(), .data, .item(), torch.no_grad() or a new torch.tensor(...) in forward.",
                measured={"trainable": False},
            )
        ]
    if not bool(torch.isfinite(out).all()):
        return [_not_finite("in training the output of finite inputs is not finite")]
    return []


def _not_finite(what: str) -> Finding:
    return Finding(
        severity="fault",
        what=what,
        why="One infinity or NaN spreads through a network in one step.",
        do="Look for a division or a logarithm of something that can be 0.",
        measured={"finite": False},
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
