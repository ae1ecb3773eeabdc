"""What the nodes of a graph have to do with each other: which are maps, how deep they lie, where their paths fork."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.fx import Node

from afftool.graft.trace import size_of
from afftool.spec.site import Kind, Scenario

_CHANNELS_SECOND = ("conv", "batch_norm", "group_norm", "instance_norm", "pool", "upsample", "pixel_shuffle")
_WEIGHTED = ("conv", "linear", "mm", "matmul")
_CHANNELS_LAST = ("linear", "layer_norm", "matmul", "rms_norm", "embedding")


class Flow:
    """What the nodes of a graph have to do with each other: which are maps, how deep they lie, where paths fork."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._place = {node: number for number, node in enumerate(nodes)}
        self._nodes = nodes
        self._weights: dict[Node, int] = {}
        self._steps: dict[Node, int] = {}
        self._above: dict[Node, int] = {}
        self._last: dict[Node, bool | None] = {}
        given = [node for node in nodes if node.op == "placeholder"]
        first = next((shape_of(node) for node in given if _is_tensor(node)), ())
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
        shape = shape_of(node)
        told = 3 <= len(shape) <= 5 and 0 not in shape and shape[0] == self._batch
        return told and bool(node.meta["val"].is_floating_point())

    def is_flat(self, node: Node) -> bool:
        """Whether a map has other dimensions than the input's maps, as boxes have: no fusion is made for it."""
        return len(shape_of(node)) != self._rank

    def _has_weights(self, node: Node) -> bool:
        """Whether a node multiplies what comes from the input by weights that do not."""
        return (
            node.op == "call_function"
            and any(word in str(node.target) for word in _WEIGHTED)
            and any(
                one not in self._above and _is_tensor(one) and len(shape_of(one)) > 1 for one in node.all_input_nodes
            )
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
        shape = shape_of(node)
        return math.prod(shape[1:-1] if self._last[node] else shape[2:])

    def _layers(self, fork: Node | None, path: Sequence[Node]) -> int:
        """Weighted layers on the longest way along a path."""
        deep: dict[Node, int] = {} if fork is None else {fork: 0}
        for node in path:
            deep[node] = max((deep[one] for one in node.all_input_nodes if one in deep), default=0) + self._has_weights(
                node
            )
        return deep[path[-1]] if path else 0


def _moved(node: Node, last: bool | None) -> bool | None:
    """Where the channels are after a permutation that puts the second dimension last, or the last second."""
    rank = len(shape_of(node)) if _is_tensor(node) else 0
    order = node.args[1] if len(node.args) == 2 else None
    if not isinstance(order, list | tuple) or len(order) != rank or last is None:
        return None
    now = [int(d) % rank for d in order if isinstance(d, int)].index(rank - 1 if last else 1)
    return True if now == rank - 1 else False if now == 1 else None


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def _holds_tensors(node: Node) -> bool:
    return isinstance(node.meta.get("val"), tuple | list)


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of the tensor that a node gives, as it was traced."""
    return tuple(size_of(extent) for extent in node.meta["val"].shape)
