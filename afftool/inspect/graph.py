"""Where torch.compile would fall back to Python."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import torch

from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject

NAME = "graph breaks"


def check(subject: Subject) -> list[Finding]:
    """How many pieces dynamo cuts the forward pass into, and why. Nothing is compiled to machine code."""
    module, maps = subject.module(), subject.maps()
    dynamo: Any = torch._dynamo
    dynamo.reset()
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
            found = dynamo.explain(module)(*maps)
    finally:
        logger.setLevel(level)
        dynamo.reset()
    reasons = [str(reason.reason).strip().splitlines()[0] for reason in found.break_reasons]
    breaks = max(int(found.graph_break_count), len(reasons))
    measured = {"graphs": int(found.graph_count), "graph_breaks": breaks, "reasons": reasons}
    if breaks == 0:
        return [Finding(check=NAME, severity="ok", what="torch.compile sees one graph", measured=measured)]
    told = f": {'; '.join(dict.fromkeys(reasons))}" if reasons else ""
    return [
        Finding(
            check=NAME,
            severity="warning",
            what=f"torch.compile breaks the graph {breaks} time{'s' if breaks > 1 else ''}{told}",
            why="Every break ends fusion of kernels and goes back to Python; fullgraph=True and CUDA graphs refuse it.",
            do="Keep Python values (.item(), print, data-dependent branches) out of forward.",
            measured=measured,
        )
    ]
