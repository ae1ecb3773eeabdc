"""Functions with a backward of their own, kept whole in a graph.

The exporter looks into an `autograd.Function` and keeps what its forward does: its backward would be lost, and what is
trained would be another network. Inside `kept` each call stays one node, and `restore` makes that node call the class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.autograd import Function
from torch.fx import GraphModule
from torch.utils._pytree import tree_unflatten

from afftool.graft.torch_version import lacking

Kinds = dict[str, type[Function]]


@contextmanager
def kept() -> Iterator[Kinds]:
    """Let the exporter keep calls of `Function.apply`; those it met are in what is given, by their names.

    Raises `LoadError` where torch has no way to.
    """
    allow_in_pre_dispatch_graph, _ = _torchs()
    own = vars(Function)["apply"]
    kinds: Kinds = {}

    @allow_in_pre_dispatch_graph  # type: ignore[untyped-decorator]
    def apply(kind: type[Function], *arguments: Any, **keywords: Any) -> Any:
        return own.__get__(None, kind)(*arguments, **keywords)

    def noted(kind: type[Function], *arguments: Any, **keywords: Any) -> Any:
        kinds[f"{kind.__module__}.{kind.__qualname__}"] = kind
        return apply(kind, *arguments, **keywords)

    Function.apply = classmethod(noted)  # type: ignore[method-assign,assignment]
    try:
        yield kinds
    finally:
        Function.apply = own  # type: ignore[method-assign]


def restore(module: GraphModule, kinds: Mapping[str, type[Function]]) -> None:
    """Make every node that stands for one of these classes call it."""
    _, flat_apply = _torchs()
    calls = {name: _calling(kind) for name, kind in kinds.items()}
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not flat_apply:
            continue
        _, spec, *flat = node.args
        (name, *arguments), keywords = tree_unflatten(flat, getattr(module, spec.target))
        if name not in calls:
            continue
        with graph.inserting_after(node):
            call = graph.call_function(calls[name], tuple(arguments), keywords)
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    for node in reversed(graph.nodes):
        if node.op == "get_attr" and not node.users:  # the specs of the calls that were replaced
            graph.erase_node(node)


def _torchs() -> tuple[Any, Any]:
    """The exporter's mark for a function that it is to keep whole, and the operator it keeps its call as."""
    try:  # at the call: a torch that lacks them runs everything else
        from torch._export.wrappers import allow_in_pre_dispatch_graph
        from torch._higher_order_ops.flat_apply import flat_apply
    except ImportError as error:
        raise lacking(error) from error
    return allow_in_pre_dispatch_graph, flat_apply


def _calling(kind: type[Function]) -> Callable[..., Any]:
    """A function of its own, since a graph names what it calls and a class method has no name there."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        return kind.apply(*arguments, **keywords)  # type: ignore[no-untyped-call]

    call.__name__ = call.__qualname__ = kind.__name__
    return call
