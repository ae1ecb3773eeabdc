"""A fusion of one's own that ends the device it runs on, in this process and for good, as an illegal access does.

DYING_LOG names a file with a line a death, which outlives whoever died; after DYING_TIMES deaths the fusion is well.
The host fails in every step of a process whose device is dead, whichever fusion it carries, as every kernel does.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from afftool.fusion import FusionFactory
from afftool.hosts import build_host
from afftool.spec import HostSpec
from afftool.study import train

BATCH, STEPS = 32, 3
"""Images a step and steps an epoch, of 96 images."""
DIES_AT = STEPS + 1
"""In the middle of the second epoch: one is saved."""
ILLEGAL = "CUDA error: an illegal memory access was encountered"

_alive = True


class Dying(nn.Module):
    """Adds, until it is time to die; how many steps it took travels with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and len(x) == BATCH:
            if int(self.step) == DIES_AT and deaths() < int(os.environ.get("DYING_TIMES", "1")):
                _die()
            self.step += 1
        return x + y


class Host(nn.Module):
    """The network inside, on a device that may be dead."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        if not _alive:
            raise torch.AcceleratorError(ILLEGAL)
        return self.network(images)


def build(fusion: FusionFactory, classes: int = 10) -> nn.Module:
    """The smallest CIFAR ResNet with one place to fuse at, on a device that may be dead."""
    return Host(build_host(HostSpec.parse(f"resnet:b=1:stages=3:classes={classes}"), fusion))


def deaths() -> int:
    """How often the device died, in whichever process."""
    log = Path(os.environ["DYING_LOG"])
    return len(log.read_text().splitlines()) if log.exists() else 0


def _die() -> None:
    global _alive
    _alive = False
    train.answers = lambda device: device == "none"  # the CPU, on which this is played, always does
    with open(os.environ["DYING_LOG"], "a") as log:
        log.write(f"{os.getpid()}\n")
    raise torch.AcceleratorError(ILLEGAL)
