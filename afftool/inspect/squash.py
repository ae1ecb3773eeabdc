"""What sigmoid, softmax, tanh and hardsigmoid give inside a module, caught while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from afftool.inspect.subject import Subject, call

_KINDS = {
    "sigmoid": "sigmoid",
    "special_expit": "sigmoid",
    "hardsigmoid": "hardsigmoid",
    "softmax": "softmax",
    "special_softmax": "softmax",
    "gumbel_softmax": "softmax",
    "tanh": "tanh",
}
"""Functions and methods by their names in torch; the layers of `torch.nn` call these."""


@dataclass(frozen=True)
class Squashed:
    """What the calls of one kind and shape gave in a forward pass: `values[i]` by the i-th of them."""

    kind: str
    values: torch.Tensor


def squashed(subject: Subject) -> list[Squashed]:
    """The gates that can be seen in one forward pass in training mode, in the order of their first call.

    What a fused operator (GELU, SiLU, GRU, attention) does inside is not among them, and no gate of a fusion.
    """
    with torch.no_grad(), _Catch() as caught:
        call(subject.module(training=True), subject.maps())
    groups: dict[tuple[str, tuple[int, ...]], list[torch.Tensor]] = {}
    for kind, values in caught.results:
        groups.setdefault((kind, tuple(values.shape)), []).append(values)
    return [Squashed(kind, torch.stack(values).double()) for (kind, _), values in groups.items()]


class _Catch(TorchFunctionMode):
    """Keeps a copy of each result, since the next operation may write into it."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[tuple[str, torch.Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = _KINDS.get(getattr(func, "__name__", "").removesuffix("_"))
        if kind and isinstance(out, torch.Tensor) and out.ndim and out.is_floating_point():
            self.results.append((kind, out.detach().clone()))
        return out
