"""A batch of one image, in training and in evaluation."""

from __future__ import annotations

import math

import torch

from afftool.inspect.finding import Finding
from afftool.inspect.subject import RAISED, Subject, call, first_line, rms

SAME = 1e-3


def check(subject: Subject) -> list[Finding]:
    """Whether one image trains, and whether in eval an image's result depends on its neighbours."""
    return [*_neighbours(subject), *_training(subject)]


def _neighbours(subject: Subject) -> list[Finding]:
    with torch.no_grad():
        # A fresh module for each call, so that what it remembers of earlier ones is not put down to the batch.
        together, again = (call(subject.module(), subject.maps())[:1] for _ in range(2))
        alone = call(subject.module(), [x[:1] for x in subject.maps()])
    size = rms(together) or 1.0
    repeated, difference = rms(together - again) / size, rms(together - alone) / size
    measured = {"eval_difference": difference, "repeated_difference": repeated}
    if not repeated <= SAME:
        return [
            Finding(
                severity="unknown",
                what=f"in eval, two calls with the same batch already differ by {repeated:.1%}, so nothing can be told "
                "about an image alone",
                why="What is random in every call hides what depends on the batch.",
                do="Draw random numbers only if self.training, and look again.",
                measured=measured,
            )
        ]
    if not difference <= SAME:
        told = f"another result than among others ({difference:.1%} off)"
        if not math.isfinite(difference):
            told = "a result that is not finite"
        return [
            Finding(
                severity="fault",
                what=f"in eval, an image alone gives {told}",
                why="Predictions then depend on what happens to be in the batch.",
                do="Take no statistics over the batch in eval: use the running ones.",
                measured=measured,
            )
        ]
    what = "in eval, one image alone gives the same as among others"
    return [Finding(severity="ok", what=what, measured=measured)]


def _training(subject: Subject) -> list[Finding]:
    try:
        _train(subject, subject.batch)
    except RAISED:
        return []  # not for the size of the batch: the check of the output says it
    try:
        out = _train(subject, 1)
    except RAISED as error:
        return [
            Finding(
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
                severity="fault",
                what="with a batch of 1 in training the output is not finite, and nothing fails",
                why="The variance of a single value is undefined; the NaN goes into the weights.",
                do="Refuse a batch of 1, or take biased variances.",
            )
        ]
    if not out.requires_grad:
        return []  # it trains with no batch at all, which the check of the output says
    return [Finding(severity="ok", what="trains with a batch of 1")]


def _train(subject: Subject, batch: int) -> torch.Tensor:
    out = call(subject.module(training=True), [x.requires_grad_().clone() for x in subject.maps(batch=batch)])
    if out.requires_grad:
        out.sum().backward()  # type: ignore[no-untyped-call]
    return out
