"""Inputs as a network gives them: no leaves of autograd, and anybody's to write into."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence

import torch
from torch import nn


def as_in_network(leaf: torch.Tensor) -> torch.Tensor:
    """The same memory as the output of an operator, which a module may write into where autograd forbids it a leaf.

    Gradients flow on into the leaf. Nothing is copied, forward or backward.
    """
    given: torch.Tensor = torch.ops.aten._unsafe_view(leaf, leaf.shape)  # the only view that autograd takes for none
    return given


def copy_in_network(leaf: torch.Tensor) -> torch.Tensor:
    """A copy of `leaf` as the output of an operator: to be written into, with a gradient that flows on into `leaf`."""
    return leaf.requires_grad_().clone()


def written_inputs(
    module: nn.Module, inputs: Sequence[torch.Tensor], *, training: bool, gradients: bool
) -> dict[int, str]:
    """The inputs that one call of `module` writes into: by their places, the names that its forward has for them.

    The call is made on copies, in inference mode unless it is for `training`, where they may have `gradients`. Raises
    whatever the module raises.
    """
    own = [x.detach().clone().requires_grad_(gradients and x.is_floating_point()) for x in inputs]
    given = [as_in_network(x) if x.requires_grad else x for x in own]
    before = versions(given)
    with torch.inference_mode(not training):
        module(*given)
    names, told = input_names(module, len(inputs)), written_since(before, given)
    return {
        place: names[place]
        for place, (x, was) in enumerate(zip(given, inputs, strict=True))
        # writing through `.data`, or from a kernel of one's own, is in no version
        if place in told or not (x.is_meta or torch.equal(x.detach(), was))
    }


def versions(inputs: Iterable[object]) -> list[int | None]:
    """How often each was written into so far, as autograd counts; None for what is no tensor."""
    return [x._version if isinstance(x, torch.Tensor) else None for x in inputs]


def written_since(before: Sequence[int | None], inputs: Iterable[object]) -> set[int]:
    """The places of those that were written into after they had these `versions`."""
    return {place for place, (was, now) in enumerate(zip(before, versions(inputs), strict=True)) if was != now}


def input_names(module: nn.Module, count: int) -> list[str]:
    """What `forward` calls its first `count` inputs; by number where it does not name them."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        parameters = {}.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "input")
    return named + [f"{rest}[{number}]" for number in range(count - len(named))]
