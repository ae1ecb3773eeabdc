"""The module table: forward from the modules' annotations, backward through autograd's arrows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from afftool.profile.rows import ModuleRow
from afftool.profile.trace import Span, Trace
from afftool.profile.tree import Forest

ACCUMULATE = "AccumulateGrad"
"""Adds a parameter's gradient. It has no forward operator and follows the node whose gradient it takes."""
_COMPILED = "Torch-Compiled Region"


@dataclass
class _Sums:
    type: str
    calls: int = 0
    forward: float = 0.0
    forward_self: float = 0.0
    backward: float = 0.0
    forward_device: float = 0.0
    backward_device: float = 0.0


def modules(trace: Trace, forest: Forest) -> list[ModuleRow]:
    """One row a module in the order of the first call.

    Under a compiler there are no modules left inside, only compiled regions; those are the rows then.
    """
    sums: dict[str, _Sums] = {}
    for span in sorted(forest.walk(), key=lambda s: s.start):
        if span.kind == "module":
            path, kind = span.module
        elif span.name.startswith(_COMPILED) and _module_above(span) is None:
            path, kind = span.name, "compiled"
        else:
            continue
        row = sums.setdefault(path, _Sums(kind))
        row.calls += 1
        row.forward += span.duration
        row.forward_self += span.duration - sum(inner.duration for inner in _inner_modules(span))
        row.forward_device += forest.device_total(span)
    for path, span in _backward(trace, forest):
        for owner in _ancestry(path, sums):
            sums[owner].backward += span.duration
            sums[owner].backward_device += forest.device_total(span)
    return [
        ModuleRow(
            path=path,
            type=row.type,
            calls=row.calls,
            forward_us=row.forward,
            forward_self_us=row.forward_self,
            backward_us=row.backward,
            forward_device_us=row.forward_device,
            backward_device_us=row.backward_device,
        )
        for path, row in sums.items()
    ]


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


def _ancestry(path: str, known: dict[str, _Sums]) -> list[str]:
    """A module's path and those of the modules around it, as far as they were called: `a.b` -> `a.b`, `a`, `.`."""
    parts = path.split(".")
    paths = [".".join(parts[:n]) for n in range(len(parts), 0, -1)] if path != "." else ["."]
    return [p for p in dict.fromkeys([*paths, "."]) if p in known]
