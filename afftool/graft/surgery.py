"""A graph with modules in the place of some of its sites, and the function it becomes.

The graph runs on the network itself: it reads parameters by their own names and calls what was put in by name, so both
modes share everything. What a site wrote in place, or what is written in place into maps that a fusion may still need,
is written elsewhere instead: the values are the same.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch.fx import Graph, Node

from afftool.errors import LoadError
from afftool.graft.sites import Found, Site
from afftool.graft.trace import Trace

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
            _rewire(graph, node, fused, found.site)
        node.replace_all_uses_with(fused)
        graph.erase_node(node)
        copies[found.node] = fused
        for one in (*inputs, fused):
            _write_elsewhere(graph, one, after=fused, site=found.site)
    _follow_the_input(graph, traced)
    return graph


def function_of(graph: Graph, name: str) -> Forward:
    """The graph as a Python function of the network and its inputs, readable in a traceback."""
    code = graph.python_code("self")
    file = f"<afftool graft of {name}, {next(_made)}>"
    linecache.cache[file] = (len(code.src), None, code.src.splitlines(keepends=True), file)
    scope = dict(code.globals)
    exec(compile(code.src, file, "exec"), scope)  # noqa: S102: torch.fx wrote it
    forward: Forward = scope["forward"]
    return forward


def _rewire(graph: Graph, written: Node, instead: Node, site: Site) -> None:
    """Whoever reads, after `written` has written it, what it writes into reads `instead`."""
    target = written.args[0]
    assert isinstance(target, Node)
    order = {node: place for place, node in enumerate(graph.nodes)}
    for alias in _aliases(graph, target):
        if written in _chain(alias):
            continue  # it is, or is made of, what was written: its readers are given the new map with it
        for user in [user for user in alias.users if order[user] > order[written] and user is not instead]:
            if alias is not target:
                raise LoadError(
                    f"site {site.number} ({site.path or 'the network'}, {site.line}) writes into memory of which "
                    f"{user.name} reads another view later",
                    hint="leave that site out, or write x = x + y there",
                )
            user.replace_input_with(alias, instead)


def _write_elsewhere(graph: Graph, node: Node, *, after: Node, site: Site) -> None:
    """Whatever writes into a map of a fusion afterwards gives a map of its own instead: autograd may need the first."""
    order = {one: place for place, one in enumerate(graph.nodes)}
    for alias in _aliases(graph, node):
        for user in sorted(alias.users, key=order.__getitem__):
            if order[user] <= order[after] or not _writes(user) or user.args[0] is not alias:
                continue
            plain = _plain_form(user)
            if plain is None:
                continue
            _rewire(graph, user, user, site)
            user.target = plain


def _aliases(graph: Graph, node: Node) -> list[Node]:
    """Every node that gives the same memory as this one."""
    root = _root(node)
    return [one for one in graph.nodes if _root(one) is root]


def _root(node: Node) -> Node:
    return _chain(node)[-1]


def _chain(node: Node) -> list[Node]:
    """A node and those it is a view of, or was written into, up to the one that made the memory."""
    chain = [node]
    while node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload) and node.args:
        returns, first = node.target._schema.returns, node.args[0]
        if not (returns and returns[0].alias_info is not None and isinstance(first, Node)):
            break
        node = first
        chain.append(node)
    return chain


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
