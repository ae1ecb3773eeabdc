"""Whether it can be exported with a batch left open."""

from __future__ import annotations

import contextlib
import io
import logging

import torch
from torch import nn

from afftool.inspect.finding import Finding
from afftool.inspect.subject import RAISED, SEED, Subject, call, first_line, rms
from afftool.quiet import quiet

OTHER_BATCH = 3


class _Named(nn.Module):
    """The fusion under a signature of its own, so that any `forward` can be given dynamic shapes by position."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Fuse the maps."""
        return call(self.module, maps)


def check(subject: Subject) -> list[Finding]:
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
