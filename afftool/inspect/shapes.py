"""Inputs that do not fit each other: refused, or silently broadcast?"""

from __future__ import annotations

import torch

from afftool.inspect.finding import Finding
from afftool.inspect.subject import RAISED, Subject, call


def check(subject: Subject) -> list[Finding]:
    """What happens when y has one position, one channel, one image, or half the size of x."""
    x = subject.maps()[0]
    cases = {
        "one position": _corner(x, [1] * len(subject.size)),
        "one channel": x[:, :1],
        "one image": x[:1],
        "half the size": _corner(x, [max(1, extent // 2) for extent in subject.size]),
    }
    accepted = {}
    for name, y in cases.items():
        if y.shape == x.shape:
            continue
        try:
            with torch.no_grad():
                out = call(subject.module(), [x, y, *subject.maps()[2:]])
        except RAISED:  # Refused, in whatever words: that is what should happen.
            continue
        accepted[name] = (tuple(y.shape), tuple(out.shape))
    measured = {"accepted": {name: list(shapes[0]) for name, shapes in accepted.items()}}
    if not accepted:
        return [Finding(severity="ok", what="refuses inputs that differ in shape", measured=measured)]
    told = "; ".join(f"x {tuple(x.shape)} and y {y} give {out}" for y, out in accepted.values())
    return [
        Finding(
            severity="warning",
            what=f"fuses inputs that do not fit, without a word: {told}",
            why="Broadcasting fuses the wrong positions, channels or images; training goes on and is only worse.",
            do="Compare the shapes first: `if x.shape != y.shape: raise ValueError(...)`.",
            measured=measured,
        )
    ]


def _corner(x: torch.Tensor, extents: list[int]) -> torch.Tensor:
    """The first positions of each spatial dimension."""
    for dimension, extent in enumerate(extents, start=2):
        x = x.narrow(dimension, 0, extent)
    return x
