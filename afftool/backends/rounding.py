"""How far eager's own results move where every operator of a step rounds a little otherwise.

Another backend adds in another order and keeps other things between its steps, so its values differ by roundings.
Mostly that moves a result by as little; but where a value lies within a rounding of a kink (a ReLU at 0, two maxima
that tie, a clamp at its end) the other branch is taken, and gradients jump. Which elements can jump, and how far, is
seen by running eager itself with roundings drawn anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from afftool.backends.outputs import TF32_TOLERANCE, Jumps, Outputs, Tensors, gap
from afftool.backends.workload import Workload
from afftool.build import Case

SIZES = (4.0, 8.0, 16.0, 32.0)
"""Largest roundings, in steps of the dtype's precision: a sum of many terms is off by more than its last bit."""
SIZES_16_BIT = (0.5, 0.5, 1.0, 1.0)
"""Of 16 bits one step is a hundredth: what is rounded to them is off by half a step."""
SIZES_TF32 = (0.5, 1.0, 1.0, 1.0)
"""Kernels that truncate what they multiply in TF32 are off by one, and all to one side."""
PRODUCTS = ("conv", "mm", "matmul", "linear", "attention")
"""What the operators are called that add up products: their rounding is as large as the terms, whatever the sum is."""


def jumps(case: Case, seed: int, eager: Outputs) -> Jumps | None:
    """How far each element of a step's results has moved at most, over steps with other roundings, inputs included.

    Each is made twice, with the roundings turned round: a value near a kink then lies beyond it in one of the two.
    None where the module does not run so.
    """
    widest: Jumps = {
        kind: {name: torch.zeros_like(gap(tensor, tensor)) for name, tensor in tensors.items()}
        for kind, tensors in eager.kinds.items()
    }
    try:
        for draw in range(len(SIZES_TF32 if eager.tf32 else SIZES)):
            for sign in (1.0, -1.0):
                rounding = OtherRoundings(draw, sign, tf32=eager.tf32)
                work = Workload(replace(case, inputs=tuple(map(rounding.moved, case.inputs))))
                with rounding:
                    moved = work.outputs(seed)
                for kind, tensors in eager.kinds.items():
                    _widen(widest[kind], moved.kinds[kind], tensors)
    except (Exception, SystemExit):  # a module that stands no watching, or no memory for it: nothing is known then
        return None
    return widest


def _widen(widest: dict[str, torch.Tensor], moved: Tensors, tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        torch.maximum(widest[name], gap(moved[name], tensor), out=widest[name])


class OtherRoundings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operator's floating results are off by a rounding of their own, drawn from `draw`, `sign` times that."""

    def __init__(self, draw: int, sign: float, *, tf32: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._draw = draw
        self._sign = sign
        self._tf32 = tf32
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(word in str(function) for word in PRODUCTS):
            args, kwargs = tree_map_only(torch.Tensor, self.moved, (args, kwargs or {}))
        result = function(*args, **(kwargs or {}))
        given = () if function._schema.is_mutable else tree_leaves((args, kwargs))
        held = {_memory(leaf) for leaf in given if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and _memory(leaf) not in held:
                leaf.mul_(self._factors(leaf))
        return result

    def moved(self, operand: torch.Tensor) -> torch.Tensor:
        """What a product takes, and a step begins with, instead of `operand`."""
        if not operand.is_floating_point():
            return operand
        return operand.detach() * self._factors(operand, tf32=self._tf32)

    def _factors(self, tensor: torch.Tensor, *, tf32: bool = False) -> torch.Tensor:
        short = tf32 and tensor.dtype == torch.float32
        sizes = SIZES_TF32 if short else SIZES_16_BIT if tensor.element_size() == 2 else SIZES
        step = TF32_TOLERANCE if short else torch.finfo(tensor.dtype).eps
        size = self._sign * sizes[self._draw % len(sizes)] * step
        drawn = torch.rand(tensor.shape, generator=self._generator(tensor.device), device=tensor.device)
        return drawn.mul_(2 * size).add_(1 - size).to(tensor.dtype)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._draw)
        return self._generators[device]


def _memory(tensor: torch.Tensor) -> int:
    """What tells a view from a result of its own: where its memory begins."""
    return tensor.untyped_storage().data_ptr()
