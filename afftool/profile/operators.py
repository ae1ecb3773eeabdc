"""Operator and kernel tables, by afftool's own reader; the same definitions as torch-tb-profiler's."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from afftool.profile.rows import KernelRow, OperatorRow
from afftool.profile.trace import Span
from afftool.profile.tree import Forest

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
