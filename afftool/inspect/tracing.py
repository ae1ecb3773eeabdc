"""What tracers see of it: where torch.compile falls back to Python, and whether torch.export takes any batch."""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import torch
from torch import nn

from afftool.console import quiet
from afftool.inspect.finding import Finding
from afftool.inspect.subject import RAISED, SEED, Subject, call, first_line, rms


def graph_breaks(subject: Subject) -> list[Finding]:
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


OTHER_BATCH = 3


class _Named(nn.Module):
    """The fusion under a signature of its own, so that any `forward` can be given dynamic shapes by position."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Fuse the maps."""
        return call(self.module, maps)


def export(subject: Subject) -> list[Finding]:
    """Export by torch.export with a dynamic batch, and run the result with another one."""
    module, maps = subject.module(), subject.maps()
    other = subject.maps(seed=1, batch=OTHER_BATCH)
    batch = torch.export.Dim("batch", min=1, max=1024)
    try:
        # What torch logs, warns and prints (whole graphs) while it tries is in the error anyway.
        with quiet("torch", logging.CRITICAL), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
            program = torch.export.export(_Named(module), (maps,), dynamic_shapes=([{0: batch} for _ in maps],))
            torch.manual_seed(SEED)  # the same draws for both, if it draws in eval
            exported = program.module()(other)
            torch.manual_seed(SEED)
            eager = call(module, other)
    except RAISED as error:
        return [
            Finding(
                severity="warning",
                what=f"cannot be exported with a dynamic batch: {first_line(error)}",
                why="Serving (ONNX, AOTInductor, ExecuTorch) starts from such an export.",
                do="Take sizes from x.shape, and let no Python value depend on the batch.",
                measured={"error": type(error).__name__},
            )
        ]
    difference = rms(exported - eager) / (rms(eager) or 1.0)
    if not difference <= 1e-4:
        return [
            Finding(
                severity="fault",
                what=f"the exported program gives another result than the module ({difference:.1%} off)",
                why="What is served is not what was trained.",
                do="Look for state or Python values that forward reads: the export keeps those of the example.",
                measured={"difference": difference},
            )
        ]
    what = "exports with a dynamic batch, and gives the same with another one"
    return [Finding(severity="ok", what=what, measured={"difference": difference})]
