"""Which of a step's blocks is what: from addresses, which are used again and again, to causes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from afftool.backends.workload import Workload
from afftool.measure.memory.allocations import Block, Timeline
from afftool.measure.memory.saved import addresses
from afftool.measure.running import followed

CAUSES = (
    "parameters",
    "buffers",
    "inputs",
    "outputs",
    "gradients",
    "input gradients",
    "optimizer",
    "saved",
    "workspace",
)
"""The parts of a peak. `outputs` are the result and the gradient that comes in at it; `saved` is without inputs."""


def optimizer_state(workload: Workload) -> list[torch.Tensor]:
    """The optimizer's tensors on the case's device."""
    if workload.optimizer is None:
        return []
    device = workload.inputs[0].device
    leaves = tree_leaves([*workload.optimizer.state.values()])
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.device == device]


@contextmanager
def output_addresses(workload: Workload) -> Iterator[set[int]]:
    """Collect where the module's outputs begin, without keeping them alive."""
    found: set[int] = set()

    def note(_path: str, _inputs: Any, output: Any) -> None:
        found.update(addresses(leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)))

    with followed({"": workload.module}, enter=lambda _path: None, leave=note):
        yield found


@dataclass(frozen=True)
class Held:
    """Where that begins which is held between two steps, by cause."""

    causes: dict[str, frozenset[int]]

    @classmethod
    def by(cls, workload: Workload) -> Held:
        """What `workload` holds now."""
        module = workload.module
        return cls(
            {
                "parameters": addresses(module.parameters()),
                "buffers": addresses(module.buffers()),
                "inputs": addresses(workload.inputs),
                "gradients": addresses(p.grad for p in module.parameters()),
                "input gradients": addresses(x.grad for x in workload.inputs),
                "optimizer": addresses(optimizer_state(workload)),
                "outputs": addresses(workload.cotangents),
            }
        )

    def cause(self, block: Block) -> str | None:
        """Why `block` is held, if it is."""
        return next((cause for cause, where in self.causes.items() if block.address in where), None)


def label(timeline: Timeline, before: Held, after: Held, outputs: set[int]) -> dict[int, str]:
    """The cause of every block, by the event it was born at.

    Addresses are used again and again, so each is looked up at a moment when its owner is known to be alive:
    between steps for what is held, and at the end of forward for what is saved.
    """
    # A block is known by the event it was born at, which is unique; its address is not. The same address can be a
    # gradient, then a temporary, then an output within one step, so a lookup by address is only right at a moment when
    # the tensor whose address it is exists. There are four such moments, the surest first.
    steady = timeline.phases["steady"]
    labels: dict[int, str] = {}
    # 1. As the step begins: what is held from before it (weights, inputs, the optimizer's state, the last gradients).
    for block in timeline.alive(steady.first):
        labels[block.born] = before.cause(block) or "workspace"
    # 2. As it ends: what it made and left behind, such as its own gradients.
    for block in timeline.alive(steady.end):
        if block.born >= steady.first:
            labels[block.born] = after.cause(block) or "workspace"
    # 3. As forward ends: what it made and still holds, and did not last until the end of the step, waits for backward.
    forward = timeline.phases.get("forward", steady)
    for block in timeline.alive(forward.end):
        if forward.first <= block.born and block.born not in labels:
            labels[block.born] = "saved"
    # 4. Outputs, whose addresses were noted as forward returned: the last block born there is the one. One that is held
    # for another reason (an input handed on, a buffer) keeps that label; one that backward needs too is an output.
    for address in outputs:
        born = [b.born for b in timeline.blocks if b.address == address and forward.first <= b.born < forward.end]
        if born and labels.get(max(born), "saved") == "saved":
            labels[max(born)] = "outputs"
    return labels


def sum_alive(timeline: Timeline, labels: dict[int, str]) -> dict[str, int]:
    """Bytes alive at the peak of the steady step, by cause."""
    parts = dict.fromkeys(CAUSES, 0)
    for block in timeline.alive(timeline.peak(timeline.phases["steady"]).at):
        parts[labels.get(block.born, "workspace")] += block.nbytes
    return parts
