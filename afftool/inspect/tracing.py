"""What tracers see of it: where torch.compile falls back to Python, and what torch.export makes of it."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from afftool.console import quiet
from afftool.inspect.finding import Finding
from afftool.inspect.sizes import at_size, other_sizes
from afftool.inspect.subject import RAISED, SAME, SEED, Subject, as_given, call, first_line, rms
from afftool.words import all_of


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
        maps = as_given(maps)
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
    """Export by torch.export with a dynamic batch, height and width, and run the result with others.

    Where that cannot be, with as many of them as can be.
    """
    names = _dynamic(subject)
    kept, reasons = list(names), dict[str, str]()
    while True:
        try:
            program = _exported(subject, kept)
            break
        except RAISED as error:
            refused = _refused(error, kept)
            if not kept:
                return [_static(error)]
            # What is not to blame by name is kept as long as it can be: first the batch alone, then nothing.
            refused = refused or ([name for name in kept if name != _BATCH] or kept)
            reasons |= dict.fromkeys(refused, _reason(error, names))
            kept = [name for name in kept if name not in refused]
    other = _others(subject, kept)
    # Torch logs, warns and prints while it runs, too.
    with quiet("torch", logging.CRITICAL), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        torch.manual_seed(SEED)  # the same draws for both, if it draws in eval
        exported = program(other)
        torch.manual_seed(SEED)
        eager = call(subject.module(), other)
    difference = rms(exported - eager) / (rms(eager) or 1.0)
    measured: dict[str, object] = {"difference": difference, "dynamic": kept, "reasons": reasons}
    findings = []
    if not difference <= SAME:
        findings.append(_differs(difference, measured))
    if reasons:
        findings.append(_partly(names, kept, reasons, measured))
    if findings:
        return findings
    what = f"exports with a dynamic {all_of(kept)}, and gives the same at {' x '.join(map(str, other[0].shape))}"
    return [Finding(severity="ok", what=what, measured=measured)]


_BATCH = "batch"
_EXTENTS = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
_SMALLEST = 4
"""Of a dynamic extent: below it a window does not fit, which is no fault of the export's."""


def _dynamic(subject: Subject) -> dict[str, int]:
    """What is to be dynamic, by the axis of the maps that it is."""
    return {_BATCH: 0} | {name: axis for axis, name in enumerate(_EXTENTS[len(subject.size)], start=2)}


def _exported(subject: Subject, names: list[str]) -> Callable[[list[torch.Tensor]], torch.Tensor]:
    """The exported program with these dynamic. Raises what the export raises."""
    maps, axes = subject.maps(), _dynamic(subject)
    dims = {}
    for name in names:
        extent = maps[0].shape[axes[name]]
        least = 1 if name == _BATCH else min(_SMALLEST, extent)
        dims[axes[name]] = torch.export.Dim(name, min=least, max=max(1024, extent))
    # What torch logs, warns and prints (whole graphs) while it tries is in the error anyway.
    with quiet("torch", logging.CRITICAL), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        program = torch.export.export(_Named(subject.module()), (maps,), dynamic_shapes=([dims for _ in maps],))
        return program.module()


def _others(subject: Subject, names: list[str]) -> list[torch.Tensor]:
    """Maps of another batch and size, where those are dynamic: of the first size at which the module itself runs."""
    batch = OTHER_BATCH if _BATCH in names else None
    for size in sorted(other_sizes(subject), key=lambda size: -len(set(size))):
        mixed = tuple(
            there if name in names else here
            for name, there, here in zip(_EXTENTS[len(size)], size, subject.size, strict=True)
        )
        maps = at_size(subject, mixed).maps(seed=1, batch=batch)
        if min(mixed) < _SMALLEST and mixed != subject.size:
            continue
        with contextlib.suppress(*RAISED), torch.no_grad():
            call(subject.module(), [x.clone() for x in maps])
            return maps
    return subject.maps(seed=1, batch=batch)


_VIOLATED = re.compile(r"Constraints violated \(([^)]*)\)")


def _refused(error: BaseException, names: list[str]) -> list[str]:
    """Which of the dynamic dimensions the error names."""
    match = _VIOLATED.search(str(error))
    told = [word.strip() for word in match[1].split(",")] if match else []
    return [name for name in names if name in told]


_EXTENT = re.compile(r"L\['maps'\]\[\d+\]\.size\(\)\[(\d+)\]")


def _reason(error: BaseException, axes: Mapping[str, int]) -> str:
    """What the error says does not hold, with the dimensions by their names."""
    said = first_line(error)
    if _VIOLATED.search(str(error)):
        lines = [line.strip() for line in str(error).splitlines()]
        said = next((line.removeprefix("- ") for line in lines if line.startswith("- ")), said)
        said = said.partition(" If you're using")[0]
    named = {str(axis): name for name, axis in axes.items()}
    said = _EXTENT.sub(lambda match: named.get(match[1], match[0]), said)
    return re.sub(r"\b(\w+) = \1\b", r"\1", said)


def _partly(names: Mapping[str, int], kept: list[str], reasons: dict[str, str], measured: dict[str, object]) -> Finding:
    refused = [name for name in names if name not in kept]
    told = "; ".join(reason.rstrip(".") for reason in dict.fromkeys(reasons.values()))
    what = f"exports with a dynamic {all_of(kept)}, but not with a dynamic {all_of(refused)}: {told}"
    if _BATCH in refused:
        only = f", only with a dynamic {all_of(kept)}" if kept else ", only at the shape of the example"
        what = f"cannot be exported with a dynamic {all_of(refused)}{only}: {told}"
    return Finding(
        severity="warning",
        what=what,
        why="Serving (ONNX, AOTInductor, ExecuTorch) starts from such an export, and images come in many sizes.",
        do="Take sizes from x.shape, and let no Python value or branch depend on them.",
        measured=measured,
    )


def _static(error: BaseException) -> Finding:
    return Finding(
        severity="warning",
        what=f"cannot be exported, with a dynamic batch or without: {first_line(error)}",
        why="Serving (ONNX, AOTInductor, ExecuTorch) starts from such an export.",
        do="Take sizes from x.shape, and let no Python value depend on what is in the maps.",
        measured={"error": type(error).__name__, "dynamic": []},
    )


def _differs(difference: float, measured: dict[str, object]) -> Finding:
    return Finding(
        severity="fault",
        what=f"the exported program gives another result than the module ({difference:.1%} off)",
        why="What is served is not what was trained.",
        do="Look for state or Python values that forward reads: the export keeps those of the example.",
        measured=measured,
    )
