"""Graph breaks and recompilations of a case under torch.compile, counted without compiling anything.

Dynamo traces the module and its graphs run as they are, so no compiler is needed and the counts are the same on
every machine.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from afftool.build import Case
from afftool.copying import real_copy
from afftool.measure.cost.counter import Counter as OperatorCounter

_REPEATS = 3
"""Calls with unchanged inputs after the first; a module that keeps count in an attribute recompiles in each."""


@dataclass(frozen=True, kw_only=True)
class GraphReading:
    """How whole the graph is. `breaks` maps where and why it breaks to how often."""

    graph_breaks: int
    recompiles: int
    breaks: dict[str, int] = field(default_factory=dict)


def count_graph(case: Case) -> GraphReading:
    """Trace copies of the case's module; the case, and what was compiled before, stay as they were."""
    from torch import _dynamo as dynamo

    with torch.set_grad_enabled(case.spec.mode == "train"), torch.random.fork_rng(devices=[]):
        first, recompiles = _count_graphs(real_copy(case.module), case.inputs)
        breaks: Counter[str] = Counter()
        if first != 1:  # where and why is only worth a second trace if there is something to say
            dynamo.reset()
            explained: Any = dynamo.explain(real_copy(case.module))(*case.inputs)
            breaks.update(_describe(reason) for reason in explained.break_reasons)
            if not breaks and first == 0 and _runs_operators(case):
                breaks["nothing of it is compiled: its forward is excluded from torch.compile"] += 1
            elif not breaks and first > 1:
                breaks["a part between two graphs is not compiled"] += first - 1
    dynamo.reset()
    return GraphReading(graph_breaks=breaks.total(), recompiles=recompiles, breaks=dict(breaks))


def _count_graphs(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[int, int]:
    """Graphs that the first call is made of, and those that later calls with the same inputs add."""
    from torch import _dynamo as dynamo

    dynamo.reset()
    graphs = 0

    def keep(graph: torch.fx.GraphModule, examples: list[torch.Tensor]) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    compiled = torch.compile(module, backend=keep)
    compiled(*inputs)
    first = graphs
    for _ in range(_REPEATS):
        compiled(*inputs)
    return first, graphs - first


def _runs_operators(case: Case) -> bool:
    """Whether there is anything to compile: a fusion that hands one of its inputs on has no graph, nor a break."""
    module = real_copy(case.module)
    with OperatorCounter() as operators:
        module(*case.inputs)
    return bool(operators.rows())


def _describe(reason: Any) -> str:
    """A break as `what (file:line)`: the user's own line, without dynamo's pages of advice."""
    what = str(reason.reason).strip().splitlines()[0]
    explanation = [line.strip() for line in str(reason.reason).splitlines() if "Explanation:" in line]
    if explanation:
        what = explanation[0].removeprefix("Explanation:").strip().rstrip(".")
    if not reason.user_stack:
        return what
    frame = reason.user_stack[-1]
    path = os.path.relpath(frame.filename)
    return f"{what} ({os.path.basename(path) if path.startswith('..') else path}:{frame.lineno})"
