"""Backends and fusions with a known fault, for tests to plant."""

import dataclasses
import itertools
import os
import signal
import sys
import time

import torch
from torch import nn

from afftool.backends import Prepared, eager
from afftool.backends.outputs import Outputs
from afftool.build import Case


def wrong(case: Case) -> Prepared:
    """Runs eagerly, but claims outputs that are 1% off."""
    prepared = eager.prepare(case)

    def outputs(seed: int) -> Outputs:
        kinds = prepared.outputs(seed).kinds
        return Outputs({kind: {name: 1.01 * t for name, t in tensors.items()} for kind, tensors in kinds.items()})

    return dataclasses.replace(prepared, backend="wrong", outputs=outputs)


def recompiling(case: Case) -> Prepared:
    """Runs eagerly and says, from the twentieth step on, that it compiled once more in every step."""
    prepared = eager.prepare(case)
    steps = 0

    def repeat(times: int) -> None:
        nonlocal steps
        steps += times
        prepared.repeat(times)

    return dataclasses.replace(prepared, backend="recompiling", repeat=repeat, compilations=lambda: max(0, steps - 20))


class Plain(nn.Module):
    """A sound fusion, with a batch norm and random numbers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.norm(self.conv(x + y)))
        return nn.functional.dropout(gate * x + (1 - gate) * y, 0.1, self.training)


class Raises(Plain):
    """Fails where values are real, not while it is counted."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not x.is_meta:
            raise ValueError("nothing fits")
        return super().forward(x, y)


class OutOfMemory(Plain):
    """Asks for more memory than there is."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not x.is_meta:
            torch.empty(1 << 60, dtype=torch.uint8)
        return super().forward(x, y)


class Dies(Plain):
    """Takes its whole process down."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not x.is_meta:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().forward(x, y)


class RaisesEverywhere(Plain):
    """Fails wherever it runs."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such thing")


class NotOnMeta(Plain):
    """Runs, but looks at values in a way that no counter stands."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if type(x) is not torch.Tensor or x.is_meta or torch.is_grad_enabled():
            raise RuntimeError("not here")
        return super().forward(x, y)


_numbers = itertools.count()


class Exits(Plain):
    """Wants to end the program, in its first step where values are real, or in the step `after`."""

    def __init__(self, channels: int, after: int = 0) -> None:
        super().__init__(channels)
        steps = itertools.count(1)
        self.step = lambda: next(steps) > after  # a function, which all copies of this module share
        self.number = next(_numbers)  # none is built twice, so that copies are made

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not x.is_meta and self.step():
            raise SystemExit(3)
        return super().forward(x, y)


class Hangs(Exits):
    """Does not come back, from its first step where values are real or from the step `after`."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not x.is_meta and self.step():
            if x.is_cuda:
                torch.cuda._sleep(1 << 60)  # cycles: a kernel that runs for years
            else:
                time.sleep(600)
        return Plain.forward(self, x, y)


class OutOfMemoryOnce(Exits):
    """Asks for too much in the step `after` of whichever comes to it first, as if its neighbours had the memory."""

    failed = False

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not x.is_meta and not OutOfMemoryOnce.failed and self.step():
            OutOfMemoryOnce.failed = True
            torch.empty(1 << 60, dtype=torch.uint8)
        return Plain.forward(self, x, y)


class OnDevice(Plain):
    """Runs as long as its process has the device, which is played where it is no GPU."""

    lost = False

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if OnDevice.lost and not x.is_meta:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        return super().forward(x, y)


class OnDeviceToo(OnDevice):
    """Another one like it."""


class TakesDevice(OnDevice):
    """Takes the device from its whole process, in its first step where values are real or in the step `after`."""

    def __init__(self, channels: int, after: int = 0) -> None:
        super().__init__(channels)
        steps = itertools.count(1)
        self.step = lambda: next(steps) > after
        self.number = next(_numbers)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not x.is_meta and self.step():
            if x.is_cuda:
                torch.zeros(4, device=x.device)[
                    torch.full((1,), 99, device=x.device)
                ]  # a kernel asserts that it is < 4
            else:
                OnDevice.lost = True
        return super().forward(x, y)


class Interrupts(Plain):
    """As if Ctrl-C were pressed while it runs."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not x.is_meta:
            raise KeyboardInterrupt
        return super().forward(x, y)


class ExitsAnywhere(Plain):
    """Wants to end the program wherever it runs."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise SystemExit(3)


def one_joule(prepared, case) -> dict[str, float]:
    """A measure: what it reads off a prepared case, as fields of a record."""
    assert prepared.backend == "eager"
    return {"energy_j": 1.0}


class DiesElsewhere(nn.Module):
    """Runs in the process that loaded this file first, and takes any other one down after it was made ready."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        if self.runs > 20 and os.environ.get("PYTEST_CURRENT_TEST") and "pytest" not in sys.modules:
            os.kill(os.getpid(), signal.SIGSEGV)
        return x + y
