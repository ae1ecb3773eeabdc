"""The exact metrics of a case and the breakdowns that explain a change of them.

Graph breaks and recompilations under torch.compile are counted without compiling anything: Dynamo traces the module
and its graphs run as they are, so no compiler is needed and the counts are the same on every machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from afftool.backends.workload import OWN_INPUTS, Workload, random_state_kept
from afftool.build import Case, build_case, copy_of
from afftool.errors import BatchStatisticsError, LoadError, Unavailable
from afftool.failure import message_of
from afftool.gate.reading import Reading, small
from afftool.gate.side import CaseError
from afftool.global_state import kept, set_by
from afftool.measure.cost import count as cost
from afftool.measure.cost.counter import Counter as OperatorCounter
from afftool.measure.cost.reading import CUT_BY, CostReading, Reach
from afftool.measure.memory import peak as memory
from afftool.registry import load
from afftool.room import check_room, least_of_case
from afftool.spec import MODULE, CaseSpec

_COST = ("params", "live_params", "macs", "flops", "moved_bytes", "uncounted_ops", "operators")
_GRAPH = ("graph_breaks", "recompiles")
_RUN = {"peak_bytes", "saved_bytes", *_GRAPH}
"""What is read off a step that is really made. Where only costs are counted, none is; where only times are, one is."""
_REPEATS = 3
"""Calls with unchanged inputs after the first; a module that keeps count in an attribute recompiles in each."""


def read_exact(spec: CaseSpec, metrics: Collection[str]) -> Reading:
    """Read those of `metrics` that are exact. Nothing is timed.

    `saved_bytes` are those of a training step on the same input, whatever the case's mode, since that is what
    anyone who trains the fusion pays; they stay out where batch norm cannot train on it. Raises the errors of
    `build_case`, `TooLarge`, and `CaseError` if the module fails when it runs.
    """
    with kept(spec.own_targets, "while it ran"):
        return _read(spec, metrics)


def _read(spec: CaseSpec, metrics: Collection[str]) -> Reading:
    check_room(least_of_case(spec), spec.device, what=spec.fusion.text)
    case = build_case(spec)
    found = _Findings(values={}, details={}, unread={}, inapplicable={})
    if any(name in metrics for name in _COST):
        reading = _count(spec)
        _refuse_cut(spec, reading.reached)
        _add_cost(found, reading, case)
    elif spec.own_targets:
        with contextlib.suppress(LoadError):  # what cannot be counted may still run: the other metrics will say
            _refuse_cut(spec, cost.reached(spec))
    if "peak_bytes" in metrics:
        _add_memory(found, "peak_bytes", case)
    if "saved_bytes" in metrics:
        _add_saved(found, spec)
    if any(name in metrics for name in _GRAPH):
        _add_graph(found, case)
    kept = {name: value for name, value in found.values.items() if name in metrics or name == "params"}
    return Reading(
        values=kept,
        details={name: small(detail) for name, detail in found.details.items() if detail},
        unread={name: reason for name, reason in found.unread.items() if name in metrics},
        inapplicable=found.inapplicable,
        source=source_of(spec),
        batch=spec.batch,
        global_state=set_by(*spec.own_targets) or {},
        nonfinite_share=None if metrics and not _RUN.intersection(metrics) else _nonfinite_share(case),
    )


@dataclass
class _Findings:
    values: dict[str, float]
    details: dict[str, dict[str, int]]
    unread: dict[str, str]
    inapplicable: dict[str, str]


def _refuse_cut(spec: CaseSpec, reached: Reach) -> None:
    """Refuse a case that no gradient passes. One that only infers may, if its parameters are frozen on purpose."""
    cut = reached.cut(input_gradients=spec.host == MODULE)
    if cut is None or (spec.mode == "infer" and not reached.trainable):
        return
    way_out = "" if spec.mode == "train" else " If it is never to be trained, freeze it: requires_grad_(False)."
    raise CaseError(f"{cut}. {CUT_BY}{way_out}")


def _nonfinite_share(case: Case) -> float | None:
    """How much of what a step gives is infinite or NaN; None where none can be made, which the metrics tell."""
    try:
        with random_state_kept(case):
            return Workload(case).outputs(OWN_INPUTS).nonfinite_share
    except (Exception, SystemExit):
        return None


def _count(spec: CaseSpec) -> CostReading:
    try:
        return cost.count(spec)
    except LoadError as error:  # it was built, so this is its forward
        raise CaseError(error.message, hint=error.hint) from error


def _add_cost(found: _Findings, reading: CostReading, case: Case) -> None:
    sizes = {name: parameter.numel() for name, parameter in case.module.named_parameters()}
    operators: dict[str, int] = {}
    for row in reading.per_operator:
        operators[row.operator] = operators.get(row.operator, 0) + row.calls
    found.values |= {
        "params": reading.params,
        "live_params": reading.live_params,
        "macs": reading.macs,
        "flops": reading.flops,
        "moved_bytes": reading.moved_bytes,
        "uncounted_ops": sum(reading.uncounted_ops.values()),
        "operators": sum(operators.values()),
    }
    found.details |= {
        "params": sizes,
        "dead_params": {name: sizes[name] for name in reading.dead_params},
        "operators": operators,
        "uncounted_ops": dict(reading.uncounted_ops),
    }


def _add_memory(found: _Findings, metric: str, case: Case) -> None:
    try:
        reading = memory.measure(case)
    except Unavailable as error:
        found.unread[metric] = error.message
        return
    if metric == "peak_bytes":
        found.values[metric] = reading.peak_bytes
        found.details[metric] = dict(reading.peak_parts_bytes or {})
    elif reading.saved_bytes is not None:
        found.values[metric] = reading.saved_bytes
        found.details[metric] = dict(reading.saved_by_module_bytes or {})


def _add_graph(found: _Findings, case: Case) -> None:
    try:
        reading = count_graph(case)
    except Exception as error:  # what dynamo cannot trace at all is worth saying, and no reason to stop
        lines = message_of(error).strip().splitlines() or ["no message"]
        reason = f"torch.compile cannot trace it: {type(error).__name__}: {lines[0]}"
        found.unread |= dict.fromkeys(_GRAPH, reason)
        return
    found.values |= {"graph_breaks": reading.graph_breaks, "recompiles": reading.recompiles}
    found.details["graph_breaks"] = reading.breaks


def _add_saved(found: _Findings, spec: CaseSpec) -> None:
    """Of the case in training mode, which there is none of where batch norm would see a single value."""
    try:
        training = build_case(dataclasses.replace(spec, mode="train"))
    except BatchStatisticsError as error:
        found.inapplicable["saved_bytes"] = f"it cannot be trained: {error.message}"
        return
    _add_memory(found, "saved_bytes", training)


def source_of(spec: CaseSpec) -> str | None:
    """`file:line` of the user's own class, from the current directory; None for what afftool brings along."""
    target = spec.fusion.target or (spec.host.target if spec.host != MODULE else None)
    if target is None:
        return None
    try:
        owner: Any = load(target)
        file = inspect.getsourcefile(owner)
        line = inspect.getsourcelines(owner)[1]
    except (LoadError, TypeError, OSError):
        return None
    path = os.path.relpath(file or "")
    return None if file is None or path.startswith("..") else f"{path.replace(os.sep, '/')}:{line}"


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
        first, recompiles = _count_graphs(copy_of(case), _inputs_of(case))
        breaks: Counter[str] = Counter()
        if first != 1:  # where and why is only worth a second trace if there is something to say
            dynamo.reset()
            explained: Any = dynamo.explain(copy_of(case))(*_inputs_of(case))
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


def _inputs_of(case: Case) -> tuple[torch.Tensor, ...]:
    """Copies of the case's inputs, into which its module may write."""
    return tuple(x.clone() for x in case.inputs)


def _runs_operators(case: Case) -> bool:
    """Whether there is anything to compile: a fusion that hands one of its inputs on has no graph, nor a break."""
    module, inputs = copy_of(case), _inputs_of(case)
    with OperatorCounter() as operators:
        module(*inputs)
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
