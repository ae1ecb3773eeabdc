"""A batch of one image, in training and in evaluation."""

from __future__ import annotations

import torch

from afftool.inspect.checks import first_line
from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject, call, rms

NAME = "batch of 1"


def check(subject: Subject) -> list[Finding]:
    """Whether one image trains, and whether in eval an image's result depends on its neighbours."""
    return [*_neighbours(subject), *_training(subject)]


def _neighbours(subject: Subject) -> list[Finding]:
    module, maps = subject.module(), subject.maps()
    with torch.no_grad():
        together = call(module, maps)[:1]
        alone = call(module, [x[:1] for x in maps])
    difference = rms(together - alone) / (rms(together) or 1.0)
    measured = {"eval_difference": difference}
    if difference > 1e-3:
        return [
            Finding(
                check=NAME,
                severity="fault",
                what=f"in eval, an image alone gives another result than among others ({difference:.1%} off)",
                why="Predictions then depend on what happens to be in the batch.",
                do="Take no statistics over the batch in eval: use the running ones.",
                measured=measured,
            )
        ]
    what = "in eval, one image alone gives the same as among others"
    return [Finding(check=NAME, severity="ok", what=what, measured=measured)]


def _training(subject: Subject) -> list[Finding]:
    try:
        out = call(subject.module(training=True), subject.maps(batch=1))
        if out.requires_grad:
            out.sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:
        return [
            Finding(
                check=NAME,
                severity="note",
                what=f"does not train with a batch of 1 ({first_line(error)})",
                why="Batch norm after global pooling sees a single value a channel: the last, smaller batch of an "
                "epoch can be the one that stops a run.",
                do="Train with 2 or more a device and drop_last=True, or take a norm that needs no batch (norm=layer).",
                measured={"error": type(error).__name__},
            )
        ]
    if not bool(torch.isfinite(out).all()):
        return [
            Finding(
                check=NAME,
                severity="fault",
                what="with a batch of 1 in training the output is not finite, and nothing fails",
                why="The variance of a single value is undefined; the NaN goes into the weights.",
                do="Refuse a batch of 1, or take biased variances.",
            )
        ]
    return [Finding(check=NAME, severity="ok", what="trains with a batch of 1")]
