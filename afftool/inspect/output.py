"""Whether it fuses at all: one finite feature map of the inputs' shape and dtype."""

from __future__ import annotations

import torch

from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject, call

NAME = "output"


def check(subject: Subject) -> list[Finding]:
    """The output's shape, dtype and finiteness. Raises what the module raises."""
    maps = subject.maps()
    with torch.no_grad():
        out = call(subject.module(), maps)
    expected = tuple(maps[0].shape)
    measured = {"shape": list(out.shape), "dtype": str(out.dtype).removeprefix("torch.")}
    if tuple(out.shape) != expected:
        return [
            Finding(
                check=NAME,
                severity="fault",
                what=f"maps of shape {expected} give one of shape {tuple(out.shape)}",
                why="A fusion takes the place of an addition, so its output must have the shape of its inputs.",
                do="Project or resize inside, or outside before fusing.",
                measured=measured,
            )
        ]
    if not bool(torch.isfinite(out).all()):
        return [
            Finding(
                check=NAME,
                severity="fault",
                what="the output of finite inputs is not finite",
                why="One infinity or NaN spreads through a network in one step.",
                do="Look for a division or a logarithm of something that can be 0.",
                measured=measured,
            )
        ]
    if out.dtype != maps[0].dtype:
        return [
            Finding(
                check=NAME,
                severity="warning",
                what=f"{maps[0].dtype} maps give a {out.dtype} one",
                why="Whatever comes next runs in another precision than was asked for.",
                do="Create constants with the input's dtype.",
                measured=measured,
            )
        ]
    return [Finding(check=NAME, severity="ok", what=f"one finite map of shape {expected}", measured=measured)]
