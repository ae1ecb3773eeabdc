"""The module table: forward from the modules' annotations, backward through autograd's arrows."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Container
from typing import Any

from afftool.profile.rows import ModuleRow
from afftool.profile.trace import Span, Trace
from afftool.profile.tree import Forest

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
