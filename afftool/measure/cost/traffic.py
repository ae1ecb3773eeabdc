"""The least bytes an operator must move: every byte it needs read once, every byte it makes written once.

What a kernel moves beyond that (a second pass, a cache too small) is not counted, nor is what a compiler would save
by never writing an intermediate map. Views and allocations move nothing. An in-place operator reads its map once and
writes it once, and gives nothing further back. An expanded map counts the storage behind it; a map that is
handed in twice, or once as it is and once transposed, is read once. Of what is only looked up (embeddings,
gathers) no more is read than comes out, and arguments that lend only their shape are not read at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from afftool.measure.cost.elementwise import METADATA

_WRITTEN_ONLY = {"copy_", "fill_", "zero_", "bernoulli_", "uniform_", "normal_", "random_", "exponential_"}
_POOL_BACKWARD = {
    f"{name}{ndim}d{suffix}_backward"
    for name, suffix in (
        ("avg_pool", ""),
        ("_adaptive_avg_pool", ""),
        ("adaptive_max_pool", ""),
        ("max_pool", "_with_indices"),
    )
    for ndim in (2, 3)
}
_LOOKED_UP = {"embedding": "weight", "index": "self", "_unsafe_index": "self", "index_select": "self", "gather": "self"}
_SCATTERED = {
    f"{name}_"
    for name in ("index_put", "_index_put_impl", "index_add", "index_copy", "scatter", "scatter_add", "scatter_reduce")
}


def moved_bytes(operator: torch._ops.OpOverload, arguments: Mapping[str, Any], outputs: Iterable[torch.Tensor]) -> int:
    """Bytes that one call of `operator` reads and writes at least; `arguments` are by their names in the schema."""
    name = operator._schema.name.partition("::")[2]
    if operator.is_view or name.removesuffix("_") in METADATA:
        return 0
    made = list(outputs)
    changed = [t for name in _changed(operator) for t in _tensors(arguments.get(name))]
    given = [t for value in arguments.values() for t in _tensors(value)]
    shared = {_storage(t) for t in given}
    if not changed and all(_storage(t) in shared for t in made):
        return 0  # a view that its schema does not call one
    kept = {_storage(t) for t in changed}
    written = _touched([*changed, *(t for t in made if _storage(t) not in kept)])
    if name in _SCATTERED:
        return _scattered(name, arguments)
    read = [t for key, value in _read(operator, name, arguments) for t in _tensors(value)]
    if name in _LOOKED_UP:
        source = arguments[_LOOKED_UP[name]]
        others = [t for t in read if t is not source]
        return min(_touched([source]), _touched(made)) + _touched(others) + written
    if name == "native_batch_norm":
        # Its schema does not say that in training it writes the running statistics, nor that in eval it saves none.
        statistics = _tensors([arguments["running_mean"], arguments["running_var"]])
        written = _touched([*made, *statistics]) if arguments["training"] else _touched(made[:1])
    return _touched(read) + written


def _changed(operator: torch._ops.OpOverload) -> list[str]:
    return [a.name for a in operator._schema.arguments if a.alias_info is not None and a.alias_info.is_write]


def _read(operator: torch._ops.OpOverload, name: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The arguments whose values the operator needs."""
    unread: set[str] = set()
    if name in _WRITTEN_ONLY or name in _POOL_BACKWARD or name.startswith("new_") or name.endswith("_like"):
        unread.add("self")
    if name.startswith("convolution_backward"):
        to_input, to_weight, _ = arguments["output_mask"]
        unread |= {"weight"} if not to_input else set()
        unread |= {"input"} if not to_weight else set()
    if name == "native_batch_norm_backward":
        # The statistics that were normalised with: the batch's own in training, the running ones in eval.
        unread |= {"running_mean", "running_var"} if arguments["train"] else {"save_mean", "save_invstd"}
    for argument in operator._schema.arguments:
        if not argument.is_out and argument.name not in unread:
            yield argument.name, arguments.get(argument.name)


def _scattered(name: str, arguments: Mapping[str, Any]) -> int:
    """In place, only the positions that are hit move: read too where something is added to them."""
    values = next((arguments[key] for key in ("values", "src", "source") if key in arguments), None)
    hit = _touched(_tensors(values))
    indices = _touched(_tensors([arguments.get("indices"), arguments.get("index")]))
    adds = "add" in name or "reduce" in name or bool(arguments.get("accumulate"))
    positions = min(hit, _touched([arguments["self"]])) if hit else indices
    return hit + indices + positions * (2 if adds else 1)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:  # sparse and other tensors without one storage
        return id(tensor)


def _touched(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of storage behind `tensors`, each region once; within a storage never more than their spans cover."""
    regions: dict[int, dict[tuple[object, ...], tuple[int, int, int]]] = {}
    for tensor in tensors:
        if tensor.numel() == 0:
            continue
        sides = [(int(n), int(s)) for n, s in zip(tensor.shape, _strides(tensor), strict=True)]
        offset = int(tensor.storage_offset()) if tensor.layout == torch.strided else 0
        span = 1 + sum((n - 1) * s for n, s in sides)
        elements = math.prod(n for n, s in sides if s)
        size = tensor.element_size()
        key = (offset, *sides)
        regions.setdefault(_storage(tensor), {})[key] = (
            offset * size,
            (offset + span) * size,
            min(elements, span) * size,
        )
    return sum(
        min(sum(touched for _, _, touched in found.values()), _covered((a, b) for a, b, _ in found.values()))
        for found in regions.values()
    )


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    if tensor.layout == torch.strided:
        return tuple(tensor.stride())
    return tuple(math.prod(tensor.shape[i + 1 :]) for i in range(tensor.dim()))  # no strides: counts as dense


def _covered(spans: Iterable[tuple[int, int]]) -> int:
    total, end = 0, 0
    for low, high in sorted(spans):
        total += max(0, high - max(low, end))
        end = max(end, high)
    return total
