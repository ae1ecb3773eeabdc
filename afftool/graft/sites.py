"""The places of a network where maps are added or concatenated, read from its graph."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from afftool.graft.flow import Flow, shape_of
from afftool.graft.trace import Trace
from afftool.spec.site import Kind, Site, template

_ADD = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
_CAT = torch.ops.aten.cat.default


@dataclass(frozen=True, eq=False)
class Found:
    """A site in its graph: the node that joins, and the nodes it joins, by age."""

    site: Site
    node: Node
    inputs: tuple[Node, ...]


@dataclass(frozen=True)
class Left:
    """What joins maps and is no site, and why."""

    path: str
    line: str
    why: str


def find(traced: Trace) -> tuple[list[Found], list[Left]]:
    """The sites of a graph in the order in which it comes to them, and what was left out. Raises nothing."""
    nodes = list(traced.graph.nodes)
    flow = Flow(nodes)
    joined: list[tuple[Kind, Node, tuple[Node, ...]]] = []
    left: list[Left] = []
    for node in nodes:
        found = _joins(node, flow)
        if found is None:
            continue
        if isinstance(found, str):
            left.append(Left(_path(node), _line(node)[0], found))
            continue
        kind, inputs = found
        joined.append((kind, node, tuple(sorted(inputs, key=flow.age))))
    sizes = sorted({shape_of(node)[2:] for _, node, _ in joined if not flow.is_flat(node)}, key=math.prod, reverse=True)
    repeats = Counter((kind, template(_path(node)), _line(node)[0]) for kind, node, _ in joined)
    seen: Counter[tuple[str, str]] = Counter()
    sites = []
    for number, (kind, node, inputs) in enumerate(joined, start=1):
        path, (line, code) = _path(node), _line(node)
        site = Site(
            number=number,
            kind=kind,
            path=path,
            line=line,
            code=code,
            stage=0 if flow.is_flat(node) else sizes.index(shape_of(node)[2:]) + 1,
            channels=tuple(shape_of(one)[1] for one in inputs),
            size=shape_of(node)[2:],
            scenario=flow.scenario(kind, inputs),
            alike=repeats[kind, template(path), line],
            nth=seen[kind, path],
            flat=flow.is_flat(node),
        )
        seen[kind, path] += 1
        sites.append(Found(site, node, inputs))
    return sites, left


def _joins(node: Node, flow: Flow) -> tuple[Kind, tuple[Node, ...]] | str | None:
    """The maps that a node joins, by kind; a reason where it joins maps and is no site; None where it joins none."""
    if node.op != "call_function" or not flow.is_map(node):
        return None
    if node.target in _ADD:
        x, y = node.args[:2]
        if not (isinstance(x, Node) and isinstance(y, Node) and flow.is_map(x) and flow.is_map(y)):
            return None
        if shape_of(x) != shape_of(y) or x is y or x.meta["val"].dtype != y.meta["val"].dtype:
            return None
        if node.kwargs.get("alpha", 1) != 1:
            return f"it adds {node.kwargs['alpha']} times a map"
        return "it adds maps whose channels are the last dimension" if flow.channels_last(x, y) else ("add", (x, y))
    if node.target is _CAT:
        maps, *rest = node.args
        dim = int(rest[0]) if rest else int(node.kwargs.get("dim", 0))  # type: ignore[arg-type]
        rank = len(shape_of(node))
        inputs = tuple(one for one in maps if isinstance(one, Node))  # type: ignore[union-attr]
        if len(inputs) < 2 or not all(flow.is_map(one) for one in inputs):
            return None
        last = flow.channels_last(*inputs)
        if last and dim % rank == rank - 1:
            return "it concatenates maps whose channels are the last dimension"
        if dim % rank != 1 or last:
            return None
        return "it concatenates a map with itself" if len(set(inputs)) < len(inputs) else ("concat", inputs)
    return None


def _path(node: Node) -> str:
    """The path of the module whose forward a node stands in, "" for the network itself."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    innermost = next(reversed(stack.values()), ("", None))[0]
    return re.sub(r"@\d+", "", str(innermost))


def _line(node: Node) -> tuple[str, str]:
    """`file.py:12` and the code there, of the innermost frame that the network's source has; "" where unknown."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]+\n\s*([^\n]*)', node.meta.get("stack_trace") or "")
    if not frames:
        return "", ""
    file, number, code = frames[-1]
    return f"{os.path.basename(file)}:{number}", code.strip()
