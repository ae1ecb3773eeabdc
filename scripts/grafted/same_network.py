"""Whether one network does what another does, to the last bit: outputs, gradients, buffers, and what its state is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

NEW = ("fusions.", "grafted_fusions.")
CONSTANTS = ("_eval_", "_train_")


@dataclass(frozen=True)
class Step:
    """What one forward and backward pass leaves: everything by name."""

    output: Mapping[str, torch.Tensor]
    gradient: Mapping[str, torch.Tensor | None]
    buffer: Mapping[str, torch.Tensor]


def step(net: nn.Module, inputs: Sequence[torch.Tensor], *, training: bool, backward: bool = True) -> Step:
    """A pass of the network in one mode, the same random numbers each time; without gradients if not `backward`."""
    net.train(training).zero_grad()
    given = [x.clone().requires_grad_(backward and x.is_floating_point()) for x in inputs]
    torch.manual_seed(1)
    with torch.set_grad_enabled(backward):
        leaves = [leaf for leaf in tree_leaves(net(*given)) if isinstance(leaf, torch.Tensor)]
    if backward:
        weighted = [(leaf * torch.randn(leaf.shape).to(leaf)).sum() for leaf in leaves if leaf.requires_grad]
        torch.stack([one.float() for one in weighted]).sum().backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    return Step(
        {f"output {number}": leaf.detach() for number, leaf in enumerate(leaves)},
        {**gradients, **{f"input {number}": x.grad for number, x in enumerate(given)}},
        {name: b.clone() for name, b in net.named_buffers()},
    )


def differences(net: nn.Module, other: nn.Module, inputs: Sequence[torch.Tensor]) -> list[str]:
    """What differs between two networks in eval and in training mode, each by its name; both get new gradients."""
    found = list(_in_state(net, other))
    for training in (False, True, False):
        one, two = (step(either, inputs, training=training) for either in (net, other))
        mode = "train" if training else "eval"
        for kind in ("output", "gradient", "buffer"):
            was, now = getattr(one, kind), getattr(two, kind)
            found += [f"{mode}: {kind} {name}" for name in was if name not in now or not _equal(was[name], now[name])]
            found += [f"{mode}: {kind} {name} is new" for name in now if name not in was and not _grafted(name)]
    return found


def _in_state(net: nn.Module, other: nn.Module) -> Iterator[str]:
    was = net.state_dict()
    now = {name: value for name, value in other.state_dict().items() if name in was or not _grafted(name)}
    if list(was) != list(now):
        yield "state: other names, or in another order"
    yield from (f"state: {name}" for name in was if name in now and not _equal(was[name], now[name]))


def _grafted(name: str) -> bool:
    """Whether a graft alone gives a network what has this name: its fusions, and constants of its graphs."""
    return name.startswith(NEW) or name.rpartition(".")[2].startswith(CONSTANTS)


def _equal(x: Any, y: Any) -> bool:
    if x is None or y is None:
        return x is y
    return x.dtype == y.dtype and x.shape == y.shape and torch.equal(torch.nan_to_num(x), torch.nan_to_num(y))
