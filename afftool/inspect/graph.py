"""Where torch.compile would fall back to Python."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import torch

from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject
from afftool.quiet import quiet


def check(subject: Subject) -> list[Finding]:
    """How many pieces dynamo cuts the forward pass into, in eval and in training, and why.

    Nothing is compiled to machine code.
    """
    graphs, breaks, reasons = _explain(subject, training=False)
    graphs_training, breaks_training, reasons_training = _explain(subject, training=True)
    measured = {
        "graphs": graphs,
        "graph_breaks": breaks,
        "reasons": reasons,
        "training_graphs": graphs_training,
        "training_graph_breaks": breaks_training,
        "training_reasons": reasons_training,
    }
    if not graphs or not graphs_training:
        return [
            Finding(
                severity="warning",
                what="torch.compile sees nothing of it: all of it runs in Python",
                why="A compiled network is cut in two here, and nothing of the fusion is sped up.",
                do="Look for torch.compiler.disable, or for a function that dynamo skips.",
                measured=measured,
            )
        ]
    if breaks == breaks_training == 0:
        what = "torch.compile sees one graph, in eval and in training"
        return [Finding(severity="ok", what=what, measured=measured)]
    told = "; ".join(dict.fromkeys(reasons + reasons_training))
    where = f"{_times(breaks)} in eval, {_times(breaks_training)} in training"
    if breaks == breaks_training:
        where = f"{_times(breaks)}, in eval and in training"
    return [
        Finding(
            severity="warning",
            what=f"torch.compile breaks the graph {where}{f': {told}' if told else ''}",
            why="Every break ends fusion of kernels and goes back to Python; fullgraph=True and CUDA graphs refuse it.",
            do="Keep Python values (.item(), print, data-dependent branches) out of forward.",
            measured=measured,
        )
    ]


def _explain(subject: Subject, *, training: bool) -> tuple[int, int, list[str]]:
    module, maps = subject.module(training=training), subject.maps()
    if training:
        maps = [x.requires_grad_().clone() for x in maps]
    dynamo: Any = torch._dynamo
    dynamo.reset()
    try:
        with (
            quiet("torch._dynamo", logging.CRITICAL),
            contextlib.redirect_stderr(io.StringIO()),
            torch.set_grad_enabled(training),
        ):
            found = dynamo.explain(module)(*maps)
    finally:
        dynamo.reset()
    reasons = [str(reason.reason).strip().splitlines()[0] for reason in found.break_reasons]
    return int(found.graph_count), max(int(found.graph_break_count), len(reasons)), reasons


def _times(number: int) -> str:
    return f"{number} time{'' if number == 1 else 's'}"
