"""A graph with modules in the place of some of its sites, and the function it becomes.

The graph runs on the network itself: it reads parameters by their own names and calls what was put in by name, so both
modes share everything. What a site wrote in place, or what is written in place into maps that a fusion may still need,
is written elsewhere instead: the values are the same.
"""

from __future__ import annotations

import linecache
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch.fx import Graph, Node

from afftool.errors import LoadError
from afftool.graft.sites import Found
from afftool.graft.trace import Trace
from afftool.spec.site import Site

Forward = Callable[..., Any]
_made = count()


def put(traced: Trace, chosen: Sequence[Found], names: Mapping[int, str]) -> Graph:
    """A copy of the graph in which each chosen site is a call of the module of this name, its maps by age.

    `names` are by the numbers of the sites. Raises `LoadError` for a site whose memory is written where others see it.
    """
    graph = Graph()
    copies: dict[Node, Node] = {}
    output = graph.graph_copy(traced.graph, copies)
    graph.output(output)
    for found in chosen:
        node, inputs = copies[found.node], [copies[one] for one in found.inputs]
        with graph.inserting_after(node):
            fused = graph.call_module(names[found.site.number], tuple(inputs))
        fused.meta = dict(node.meta)
        if _writes(node):
            _rewire(_Memory(graph), node, fused, found.site)
        node.replace_all_uses_with(fused)
        graph.erase_node(node)
        copies[found.node] = fused
        _write_elsewhere(graph, fused)
    _follow_the_input(graph, traced)
    return graph


def function_of(graph: Graph, name: str) -> Forward:
    """The graph as a Python function of the network and its inputs, readable in a traceback."""
    code = graph.python_code("self")
    file = f"<afftool graft of {name}, {next(_made)}>"
    linecache.cache[file] = (len(code.src), None, code.src.splitlines(keepends=True), file)
    scope = dict(code.globals)
    exec(compile(code.src, file, "exec"), scope)  # torch.fx wrote it
    forward: Forward = scope["forward"]
    return forward


class _Memory:
    """Where the nodes of a graph stand, and which of them give the same memory; as it is now."""

    def __init__(self, graph: Graph) -> None:
        self.place: dict[Node, int] = {}
        self._root: dict[Node, Node] = {}
        self._family: dict[Node, list[Node]] = {}
        for place, node in enumerate(graph.nodes):
            self.place[node] = place
            base = _base(node)
            root = self._root[node] = node if base is None else self._root[base]
            self._family.setdefault(root, []).append(node)

    def aliases(self, node: Node) -> list[Node]:
        """Every node that gives the same memory as this one."""
        return self._family[self._root[node]]

    def readers_after(self, written: Node) -> Iterator[tuple[Node, Node]]:
        """Nodes whose memory `written` has written, but for itself and its views, each with one that reads it later."""
        for alias in self.aliases(written):
            if written not in _chain(alias):
                yield from ((alias, user) for user in alias.users if self.place[user] > self.place[written])


def _rewire(memory: _Memory, written: Node, instead: Node, site: Site) -> None:
    """Whoever reads, after `written` has written it, what it writes into reads `instead`."""
    readers = [(alias, user) for alias, user in memory.readers_after(written) if user is not instead]
    for alias, user in readers:
        if alias is not written.args[0]:
            raise LoadError(
                f"site {site.number} ({site.where}, {site.line}) writes into memory of which "
                f"{user.name} reads another view later",
                hint="leave that site out, or write x = x + y there",
            )
    for alias, user in readers:
        user.replace_input_with(alias, instead)


def _write_elsewhere(graph: Graph, fused: Node) -> None:
    """Whatever writes into a map of a fusion afterwards writes elsewhere: autograd may need the map as it was.

    The writer gives a map of its own instead, to all that read it later. Where another view of the map is read, the
    fusion is given, or gives, a copy.
    """
    memory = _Memory(graph)
    for node in (*fused.all_input_nodes, fused):
        writers = [
            (alias, user)
            for alias in memory.aliases(node)
            for user in alias.users
            if memory.place[user] > memory.place[fused] and _writes(user) and user.args[0] is alias
        ]
        for _, writer in sorted(writers, key=lambda pair: memory.place[pair[1]]):
            plain = _plain_form(writer)
            readers = list(memory.readers_after(writer))
            if plain is None or any(alias is not writer.args[0] for alias, _ in readers):
                _copy(graph, node, fused)
                break
            for alias, user in readers:
                user.replace_input_with(alias, writer)
            writer.target = plain
        if writers:
            memory = _Memory(graph)


def _copy(graph: Graph, node: Node, fused: Node) -> None:
    """Let a fusion work on a copy of one of its maps, or the network on a copy of what it gives."""
    with graph.inserting_after(fused) if node is fused else graph.inserting_before(fused):
        copy = graph.call_function(torch.ops.aten.clone.default, (node,))
    copy.meta = dict(node.meta)
    if node is not fused:
        fused.replace_input_with(node, copy)
        return
    node.replace_all_uses_with(copy, delete_user_cb=lambda user: user is not copy)


def _chain(node: Node) -> list[Node]:
    """A node and those it is a view of, or was written into, up to the one that made the memory."""
    chain = [node]
    while (base := _base(chain[-1])) is not None:
        chain.append(base)
    return chain


def _base(node: Node) -> Node | None:
    """What a node is a view of, a piece of, or was written into; None if it has memory of its own."""
    if node.op != "call_function" or not node.args:
        return None
    first, target = node.args[0], node.target
    if target is operator.getitem:
        return first if isinstance(first, Node) and _base(first) is not None else None
    if not isinstance(target, torch._ops.OpOverload):
        return None
    if _gives_back(node):
        return first if isinstance(first, Node) else None
    returns = target._schema.returns
    marks = returns[0].alias_info if returns else None
    if marks is None:
        return None
    for place, argument in enumerate(target._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.before_set & marks.before_set:
            given = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
            return given if isinstance(given, Node) else None
    return None


def _gives_back(node: Node) -> bool:
    """Whether an operator gives its argument itself, which its schema does not tell."""
    name, given = str(node.target), node.args
    if "dropout" in name and len(given) > 2:
        return given[2] is False or given[1] in (0, 0.0)
    if "type_as" in name:
        return all(isinstance(x, Node) for x in given) and len({x.meta["val"].dtype for x in given}) == 1  # type: ignore[union-attr]
    return False


def _writes(node: Node) -> bool:
    """Whether a node writes into its first argument."""
    if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload) or not node.args:
        return False
    first = node.target._schema.arguments[0].alias_info
    return first is not None and first.is_write and isinstance(node.args[0], Node)


def _plain_form(node: Node) -> Any:
    """The same operator that gives its result in memory of its own; None where torch has none."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    name = target._schema.name.removeprefix("aten::").removesuffix("_")
    packet = getattr(torch.ops.aten, name, None)
    return getattr(packet, target._overloadname, None) if packet is not None else None


def _follow_the_input(graph: Graph, traced: Trace) -> None:
    """What was made on the device of the traced input is made on the device of the input that is given."""
    placed = [node for node in graph.nodes if node.op == "placeholder"]
    here = [node for node in graph.nodes if node.op == "call_function" and _names_device(node, traced.device)]
    if not (placed and here):
        return
    with graph.inserting_after(placed[-1]):
        device = graph.call_function(getattr, (placed[0], "device"))
    for node in here:
        node.args = torch.fx.node.map_aggregate(node.args, lambda a: device if a == traced.device else a)
        node.kwargs = torch.fx.node.map_aggregate(node.kwargs, lambda a: device if a == traced.device else a)


def _names_device(node: Node, device: torch.device) -> bool:
    return any(isinstance(value, torch.device) and value == device for value in (*node.args, *node.kwargs.values()))
