"""Operator, kernel and module tables, by afftool's own reader; the first two with torch-tb-profiler's definitions.

Modules have their forward from their annotations in the trace, their backward through autograd's arrows.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Container, Iterable
from typing import Any

from afftool.profile.summary import KernelRow, ModuleRow, OperatorRow
from afftool.profile.trace import Forest, Span, Trace

# The first row whose pattern is found in the operator's name decides; names are ATen's, autograd's and inductor's.
KINDS: tuple[tuple[str, str], ...] = (
    ("compiler", r"torch-compiled|dynamo|aotdispatch|pregraph|compiledf"),
    ("optimizer", r"optimizer\.|_foreach_|_fused_(sgd|adam)"),
    ("fused kernel", r"(cpp|triton)_\w*fused"),
    (
        "view",
        r"::(view|reshape|_?unsafe_view|expand|as_strided|transpose|permute|select|slice|\w*squeeze|detach|chunk|split"
        r"|flatten|t|alias|narrow|unbind|\w*view_as)(_|\b)|^detach$",
    ),
    ("memory", r"::\w*(copy|clone|empty|zeros|ones|fill|zero_|contiguous|resize)|::(to|cat|stack)\b"),
    ("convolution", r"conv"),
    ("matrix product", r"\b\w*mm\b|matmul|linear\b|einsum|::dot\b|addmv"),
    ("normalisation", r"batch_?norm|group_?norm|layer_?norm|instance_?norm"),
    ("pooling", r"pool"),
    ("resampling", r"upsample|interpolate|grid_sample"),
    ("softmax", r"softmax"),
    ("activation", r"sigmoid|tanh|relu|silu|gelu|threshold|clamp|hardswish"),
    ("reduction", r"(::|^)(sum|mean|max|min|amax|amin|var|std|any|all|norm|prod)(_|\b)|(sum|mean)backward"),
    (
        "elementwise",
        r"(::|^)(add|sub|mul|div|rsub|neg|pow|exp|sqrt|rsqrt|where|lerp|addcmul|addcdiv|abs|sign|eq|ne|lt|gt|le|ge"
        r"|bitwise_\w+|logical_\w+)(_|\b)|(add|sub|mul|div|neg|pow|exp)backward",
    ),
    ("autograd", r"autograd|backward|accumulategrad"),
)
_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in KINDS)


def kind_of(name: str) -> str:
    """What kind of work an operator does, by its name; `other` if nothing is known about it.

    The engine's own wrapper around a backward node is of kind autograd, whatever node it runs.
    """
    lowered = name.lower()
    if lowered.startswith("autograd::engine"):
        return "autograd"
    return next((kind for kind, pattern in _PATTERNS if pattern.search(lowered)), "other")


def is_operator(span: Span) -> bool:
    """Whether a host span counts in the operator table."""
    return span.kind == "operator" and not span.name.startswith("Optimizer.")


def operators(forest: Forest) -> list[OperatorRow]:
    """One row an operator, the most expensive first: by device time where there is any, else by host time."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0, 0.0])
    for span in forest.walk():
        if is_operator(span):
            values = (1, forest.host_self(span), span.duration, forest.device_self(span), forest.device_total(span))
            sums[span.name] = [a + b for a, b in zip(sums[span.name], values, strict=True)]
    return sort_operators(
        OperatorRow(
            name=name,
            kind=kind_of(name),
            calls=int(calls),
            host_self_us=host_self,
            host_total_us=host_total,
            device_self_us=device_self,
            device_total_us=device_total,
        )
        for name, (calls, host_self, host_total, device_self, device_total) in sums.items()
    )


def sort_operators(rows: Iterable[OperatorRow]) -> list[OperatorRow]:
    """Most expensive first, equal ones by name."""
    return sorted(rows, key=lambda r: (-r.device_self_us, -r.host_self_us, r.name))


def kernels(device: list[Span]) -> list[KernelRow]:
    """One row a kernel, the most expensive first."""
    by_name: dict[str, list[Span]] = defaultdict(list)
    for span in device:
        if span.kind == "kernel":
            by_name[span.name].append(span)
    rows = []
    for name, spans in by_name.items():
        times = [s.duration for s in spans]
        rows.append(
            KernelRow(
                name=name,
                calls=len(spans),
                total_us=sum(times),
                mean_us=sum(times) / len(times),
                min_us=min(times),
                max_us=max(times),
                occupancy_percent=_weighted(spans, "est. achieved occupancy %"),
                blocks_per_sm=_weighted(spans, "blocks per SM"),
            )
        )
    return sorted(rows, key=lambda r: (-r.total_us, r.name))


def _weighted(spans: list[Span], argument: str) -> float | None:
    given = [(s.duration, float(s.args[argument])) for s in spans if s.args.get(argument) is not None]
    weight = sum(duration for duration, _ in given)
    return sum(duration * value for duration, value in given) / weight if weight else None


ACCUMULATE = "AccumulateGrad"
"""Adds a parameter's gradient. It has no forward operator and follows the node whose gradient it takes."""
_COMPILED = "Torch-Compiled Region"


def modules(trace: Trace, forest: Forest) -> list[ModuleRow]:
    """One row a module in the order of the first call.

    Under a compiler there are no modules left inside, only compiled regions; those are the rows then.
    """
    rows: dict[str, ModuleRow] = {}
    for span in sorted(forest.walk(), key=lambda s: s.start):
        if span.kind == "module":
            path, kind = span.module
        elif span.name.startswith(_COMPILED) and _module_above(span) is None:
            path, kind = span.name, "compiled"
        else:
            continue
        rows[path] = _plus(
            rows.get(path) or ModuleRow(path=path, type=kind),
            calls=1,
            forward_us=span.duration,
            forward_self_us=span.duration - sum(inner.duration for inner in _inner_modules(span)),
            forward_device_us=forest.device_total(span),
        )
    for path, span in _backward(trace, forest):
        device_us = forest.device_total(span)
        for owner in _ancestry(path, rows):
            rows[owner] = _plus(rows[owner], backward_us=span.duration, backward_device_us=device_us)
    return list(rows.values())


def _plus(row: ModuleRow, **more: float) -> ModuleRow:
    """The row with these added to its fields of the same names."""
    sums: dict[str, Any] = {name: getattr(row, name) + value for name, value in more.items()}
    return dataclasses.replace(row, **sums)


def _backward(trace: Trace, forest: Forest) -> list[tuple[str, Span]]:
    """Every outermost autograd node with the path of the module whose operator made it."""
    forward_modules: dict[tuple[str, float], str] = {}
    nodes: dict[str, list[Span]] = defaultdict(list)
    for span in forest.walk():
        if span.kind == "operator" and span.parent is not None:
            owner = _module_above(span)
            if owner is not None:
                forward_modules[span.lane[1], span.start] = owner
        if span.name.startswith("autograd::engine::evaluate_function"):
            nodes[str(span.lane)].append(span)
    found: list[tuple[str, Span]] = []
    # The engine runs a parameter's AccumulateGrad right behind the node that made the gradient, on the same thread.
    for spans in nodes.values():
        owner = None
        for node in sorted(spans, key=lambda s: s.start):
            if ACCUMULATE not in node.name:
                owner = _forward_owner(trace, node, forward_modules)
            if owner is not None:
                found.append((owner, node))
    return found


def _forward_owner(trace: Trace, node: Span, forward_modules: dict[tuple[str, float], str]) -> str | None:
    for span in (node, *node.children):
        forward = trace.backward.get((span.lane[1], span.start))
        if forward is not None:
            return forward_modules.get(forward)
    return None


def _module_above(span: Span) -> str | None:
    """Path of the innermost module that a span runs in, or of the compiled region."""
    above = span.parent
    while above is not None:
        if above.kind == "module":
            return above.module[0]
        if above.name.startswith(_COMPILED):
            return above.name
        above = above.parent
    return None


def _inner_modules(span: Span) -> list[Span]:
    found = []
    for child in span.children:
        found += [child] if child.kind == "module" else _inner_modules(child)
    return found


def _ancestry(path: str, known: Container[str]) -> list[str]:
    """A module's path and those of the modules around it, as far as they were called: `a.b` -> `a.b`, `a`, `.`."""
    parts = path.split(".")
    paths = [".".join(parts[:n]) for n in range(len(parts), 0, -1)] if path != "." else ["."]
    return [p for p in dict.fromkeys([*paths, "."]) if p in known]
