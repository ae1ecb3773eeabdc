"""What is inspected: a fusion that can be built afresh, and inputs for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from afftool.spec import FusionSpec

SEED = 20210101


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A fusion of `inputs` maps `(batch, channels, *size)`. Whatever a check does, the next one gets a fresh module."""

    name: str
    make: Callable[[], nn.Module]
    channels: int
    size: tuple[int, ...]
    batch: int = 8
    inputs: int = 2
    known: bool = False
    """Whether it is of our own grammar, so that its branches have known names."""

    def module(self, *, training: bool = False, seed: int = SEED) -> nn.Module:
        """A fresh module on the CPU, its initialisation drawn from `seed`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().train(training)

    def maps(self, *, seed: int = SEED, batch: int | None = None, count: int | None = None) -> list[torch.Tensor]:
        """Independent standard normal feature maps, as many as the fusion takes."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.batch if batch is None else batch, self.channels, *self.size)
        return [torch.randn(shape, generator=generator) for _ in range(count or self.inputs)]


def call(module: nn.Module, maps: list[torch.Tensor]) -> torch.Tensor:
    """The module's output. Raises what it raises, and `TypeError` where that is not one tensor."""
    out = module(*maps)
    if not isinstance(out, torch.Tensor):
        raise TypeError(f"it returns a {type(out).__name__}, not one feature map")
    return out


def rms(tensor: torch.Tensor) -> float:
    """Root mean square of all elements."""
    return float(tensor.detach().double().square().mean().sqrt())


def precise(subject: Subject, *, training: bool = False) -> tuple[nn.Module, list[torch.Tensor]]:
    """A fresh module and its inputs in double precision, so that a ratio of 2 is 2; in single where it only runs so."""
    maps = [x.double() for x in subject.maps()]
    try:
        with torch.no_grad():
            call(subject.module(training=training).double(), maps)
    except Exception:  # A constant of another dtype inside, most often.
        return subject.module(training=training), subject.maps()
    return subject.module(training=training).double(), maps


def subject_of(fusion: FusionSpec, *, channels: int, size: tuple[int, ...], batch: int) -> Subject:
    """The subject for a fusion spec, ours or `pkg.mod:Class`. Raises `LoadError` if it cannot be built."""
    from afftool.fusion import build_fusion

    def make() -> nn.Module:
        return build_fusion(fusion, channels=channels)

    subject = Subject(
        name=fusion.text,
        make=make,
        channels=channels,
        size=size,
        batch=batch,
        inputs=fusion.inputs,
        known=fusion.grammar is not None,
    )
    subject.module()  # what cannot be built is told here, before any check
    return subject
