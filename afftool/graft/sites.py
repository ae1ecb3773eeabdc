"""The places of a network where maps are added or concatenated, read from its graph."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from afftool.graft.trace import Trace, size_of
from afftool.spec.graft import Kind, Scenario

_ADD = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
_CAT = torch.ops.aten.cat.default
_CHANNELS_SECOND = ("conv", "batch_norm", "group_norm", "instance_norm", "pool", "upsample", "pixel_shuffle")
_WEIGHTED = ("conv", "linear", "mm", "matmul")
_CHANNELS_LAST = ("linear", "layer_norm", "matmul", "rms_norm", "embedding")


@dataclass(frozen=True, kw_only=True)
class Site:
    """One place where a network joins maps. `channels` go by age: the skip first, then the branch.

    `stage` counts the sizes at which the network joins maps, the largest first, from 1. `line` is where its source does
    so, `path` the module whose forward that is. `alike` is how many sites stand in the same place of repeated blocks,
    `nth` which of its kind it is in its module. `flat` sites join what has other dimensions than the network's input,
    boxes for example: they are chosen by number alone.
    """

    number: int
    kind: Kind
    path: str
    line: str
    code: str
    stage: int
    channels: tuple[int, ...]
    size: tuple[int, ...]
    scenario: Scenario
    alike: int
    nth: int
    flat: bool = False

    @property
    def width(self) -> int:
        """The channels it is fused at: the widest map's, so that none loses any before it is fused."""
        return max(self.channels)

    @property
    def out(self) -> int:
        """The channels that what follows expects."""
        return self.channels[0] if self.kind == "add" else sum(self.channels)

    @property
    def equal(self) -> bool:
        """Whether its maps have one width."""
        return len(set(self.channels)) == 1

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is called by in the other mode's graph: its kind, its module, and which of those there it is."""
        return self.kind, self.path, self.nth

    @property
    def twin(self) -> tuple[object, ...]:
        """What sites that may share one fusion have in common."""
        return self.kind, self.place, self.line, self.nth, self.channels

    @property
    def place(self) -> str:
        """Its path with the numbers of repeated blocks left out, alike for sites that repeat."""
        return template(self.path)


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


def template(path: str) -> str:
    """`layer1.*.conv` for `layer1.0.conv`."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


def find(traced: Trace) -> tuple[list[Found], list[Left]]:
    """The sites of a graph in the order in which it comes to them, and what was left out. Raises nothing."""
    nodes = list(traced.graph.nodes)
    flow = _Flow(nodes)
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
    sizes = sorted({_shape(node)[2:] for _, node, _ in joined if not flow.is_flat(node)}, key=_area, reverse=True)
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
            stage=0 if flow.is_flat(node) else sizes.index(_shape(node)[2:]) + 1,
            channels=tuple(_shape(one)[1] for one in inputs),
            size=_shape(node)[2:],
            scenario=flow.scenario(kind, inputs),
            alike=repeats[kind, template(path), line],
            nth=seen[kind, path],
            flat=flow.is_flat(node),
        )
        seen[kind, path] += 1
        sites.append(Found(site, node, inputs))
    return sites, left


def _joins(node: Node, flow: _Flow) -> tuple[Kind, tuple[Node, ...]] | str | None:
    """The maps that a node joins, by kind; a reason where it joins maps and is no site; None where it joins none."""
    if node.op != "call_function" or not flow.is_map(node):
        return None
    if node.target in _ADD:
        x, y = node.args[:2]
        if not (isinstance(x, Node) and isinstance(y, Node) and flow.is_map(x) and flow.is_map(y)):
            return None
        if _shape(x) != _shape(y) or x is y or _dtype(x) != _dtype(y):
            return None
        if node.kwargs.get("alpha", 1) != 1:
            return f"it adds {node.kwargs['alpha']} times a map"
        return "it adds maps whose channels are the last dimension" if flow.channels_last(x, y) else ("add", (x, y))
    if node.target is _CAT:
        maps, *rest = node.args
        dim = int(rest[0]) if rest else int(node.kwargs.get("dim", 0))  # type: ignore[arg-type]
        rank = len(_shape(node))
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


class _Flow:
    """What the nodes of a graph have to do with each other: which are maps, how deep they lie, where paths fork."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._place = {node: number for number, node in enumerate(nodes)}
        self._nodes = nodes
        self._weights: dict[Node, int] = {}
        self._steps: dict[Node, int] = {}
        self._above: dict[Node, int] = {}
        self._last: dict[Node, bool | None] = {}
        given = [node for node in nodes if node.op == "placeholder"]
        first = next((_shape(node) for node in given if _is_tensor(node)), ())
        self._rank, self._batch = len(first), first[0] if first else 0
        for node in nodes:
            self._read(node)

    def _read(self, node: Node) -> None:
        before = [one for one in node.all_input_nodes if one in self._above]
        comes_from_input = (node.op == "placeholder" or bool(before)) and node.op != "output"
        if not (comes_from_input and (_is_tensor(node) or _holds_tensors(node))):
            return
        self._above[node] = 1 << self._place[node]
        for one in before:
            self._above[node] |= self._above[one]
        weighted = self._has_weights(node)
        self._weights[node] = max((self._weights[one] for one in before), default=0) + weighted
        self._steps[node] = max((self._steps[one] for one in before), default=0) + 1
        self._last[node] = self._channels_last(node, before)

    def _channels_last(self, node: Node, before: Sequence[Node]) -> bool | None:
        """Whether the channels of what a node gives are its last dimension; None where nothing has told."""
        name = str(node.target)
        if any(word in name for word in _CHANNELS_SECOND):
            return False
        if any(word in name for word in _CHANNELS_LAST):
            return True
        if "permute" in name or "transpose" in name or "movedim" in name:
            return _moved(node, self._last[before[0]]) if before else None
        told = [self._last[one] for one in before if self._last[one] is not None]
        return told[0] if told else None

    def is_map(self, node: Node) -> bool:
        """Whether a node is a feature map `(N, C, *S)`: worked out from the input, a batch as long."""
        if node not in self._above or not _is_tensor(node):
            return False
        shape = _shape(node)
        told = 3 <= len(shape) <= 5 and 0 not in shape and shape[0] == self._batch
        return told and bool(node.meta["val"].is_floating_point())

    def is_flat(self, node: Node) -> bool:
        """Whether a map has other dimensions than the input's maps, as boxes have: no fusion is made for it."""
        return len(_shape(node)) != self._rank

    def _has_weights(self, node: Node) -> bool:
        """Whether a node multiplies what comes from the input by weights that do not."""
        return (
            node.op == "call_function"
            and any(word in str(node.target) for word in _WEIGHTED)
            and any(one not in self._above and _is_tensor(one) and len(_shape(one)) > 1 for one in node.all_input_nodes)
        )

    def channels_last(self, *nodes: Node) -> bool:
        """Whether the channels of these maps are known to be their last dimension."""
        told = {self._last[node] for node in nodes} - {None}
        return told == {True}

    def age(self, node: Node) -> tuple[int, int, int]:
        """How deep a node lies: weighted layers on the longest way to it, then operators, then its place."""
        return self._weights[node], self._steps[node], self._place[node]

    def scenario(self, kind: Kind, inputs: Sequence[Node]) -> Scenario:
        """What the maps are to each other, in the paper's words (Section 3.1).

        They are followed back to where their paths fork. A long skip leaves the sizes between fork and site on the
        way; a short skip brings what it forked from, or its projection, past a branch of more layers; what is left are
        maps of one layer.
        """
        x, y = inputs[0], inputs[-1]
        common = self._above[x] & self._above[y]
        fork = self._nodes[common.bit_length() - 1] if common else None
        paths = [self._between(fork, one) for one in (x, y)]
        site, top = self._size(x), self._size(fork) if fork is not None else 0
        low, high = min(site, top or site), max(site, top)
        sizes = {self._size(n) for path in paths for n in path if self.is_map(n) and "pad" not in str(n.target)}
        if any(not low <= size <= high for size in sizes):
            return "long-skip"
        skip, branch = (self._layers(fork, path) for path in paths)
        projected = 1 if kind == "add" else 0
        return "short-skip" if skip <= projected and skip < branch else "same-layer"

    def _between(self, fork: Node | None, end: Node) -> list[Node]:
        """The nodes on the ways from the fork to the end, without the fork; all that lead to it where there is none.

        What only weighs or shifts a larger map (a gate, a mean) is beside the way.
        """
        bit = 1 << self._place[fork] if fork is not None else 0
        on_the_way, todo = set[Node](), [end]
        while todo:
            node = todo.pop()
            if node in on_the_way or node is fork or not (self._above[node] & bit or not bit):
                continue
            on_the_way.add(node)
            before = [one for one in node.all_input_nodes if one in self._above]
            largest = max((self._size(one) for one in before), default=0)
            todo += [one for one in before if len(before) == 1 or self._size(one) == largest]
        return sorted(on_the_way, key=self._place.__getitem__)

    def _size(self, node: Node) -> int:
        """How many positions a map has; 0 for what is none."""
        if not self.is_map(node):
            return 0
        shape = _shape(node)
        return _area(shape[1:-1] if self._last[node] else shape[2:])

    def _layers(self, fork: Node | None, path: Sequence[Node]) -> int:
        """Weighted layers on the longest way along a path."""
        deep: dict[Node, int] = {} if fork is None else {fork: 0}
        for node in path:
            deep[node] = max((deep[one] for one in node.all_input_nodes if one in deep), default=0) + self._has_weights(
                node
            )
        return max((deep[node] for node in path[-1:]), default=0)


def _moved(node: Node, last: bool | None) -> bool | None:
    """Where the channels are after a permutation that puts the second dimension last, or the last second."""
    rank = len(_shape(node)) if _is_tensor(node) else 0
    order = node.args[1] if len(node.args) == 2 else None
    if not isinstance(order, list | tuple) or len(order) != rank:
        return None
    where = rank - 1 if last else 1
    if last is None:
        return None
    now = [int(d) % rank for d in order if isinstance(d, int)].index(where)
    return True if now == rank - 1 else False if now == 1 else None


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _holds_tensors(node: Node) -> bool:
    return isinstance(node.meta.get("val"), tuple | list)


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(size_of(extent) for extent in node.meta["val"].shape)


def _dtype(node: Node) -> torch.dtype:
    dtype: torch.dtype = node.meta["val"].dtype
    return dtype


def _area(size: Iterable[int]) -> int:
    area = 1
    for extent in size:
        area *= extent
    return area


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
