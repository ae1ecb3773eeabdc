"""What is inspected: a fusion that can be built afresh, and inputs for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from afftool.console import quiet
from afftool.errors import LoadError
from afftool.failure import message_of
from afftool.fusion import build_fusion
from afftool.inputs import copy_in_network
from afftool.lazy import settle
from afftool.room import check_room, least_of_case
from afftool.spec import CaseSpec, FusionSpec, targets_of

SEED = 20210101
RAISED = (Exception, SystemExit)
"""What anybody's code may raise where it is run: a module that exits must not take the command along."""
EXACT = 1e-5
"""Relative, of what is `precise`: what is constant is so better than this, in single precision too.

The catalog's rounding reaches 1.3e-7 in single; what is not constant there varies by 0.03 or more.
"""
SAME = 1e-4
"""Relative, in single precision: what differs by more than this differs by more than rounding.

An image alone and among others differ by 5e-8 at most in the catalog and 2e-7 in 176 random modules; by 0.015 where
statistics of the batch leak.
"""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A fusion of `inputs` maps `(batch, channels, *size)`. Whatever a check does, the next one gets a fresh module."""

    name: str
    make: Callable[[], nn.Module]
    channels: int
    size: tuple[int, ...]
    batch: int = 8
    inputs: int = 2
    fusion: FusionSpec | None = None
    """The fusion it is, where one is known: it may be given maps of unequal shapes."""
    known: bool = False
    """Whether it is of our own grammar, so that its branches have known names."""
    targets: tuple[str, ...] = ()
    """The object of the user's own that it is, `pkg.mod:Name`, if it is one."""

    def module(self, *, training: bool = False, seed: int = SEED) -> nn.Module:
        """A fresh module on the CPU, its initialisation drawn from `seed`: built again, since not all can be copied."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return settle(self.make(), self.maps()).train(training)

    def maps(self, *, seed: int = SEED, batch: int | None = None, count: int | None = None) -> list[torch.Tensor]:
        """Independent standard normal feature maps, as many as the fusion takes."""
        generator = torch.Generator().manual_seed(seed)
        shapes = ((self.channels, *self.size),) * self.inputs
        if self.fusion is not None:
            shapes = self.fusion.map_shapes(self.channels, self.size)
        if count is not None:
            shapes = shapes[:1] * count
        return [torch.randn((self.batch if batch is None else batch, *s), generator=generator) for s in shapes]

    @property
    def uneven(self) -> bool:
        """Whether its maps differ in shape."""
        return self.fusion is not None and self.fusion.uneven


def call(module: nn.Module, maps: list[torch.Tensor]) -> torch.Tensor:
    """The module's output, the first map of it where it returns several. Raises what it raises, and `TypeError`."""
    return first_map(module(*maps))


def as_given(maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """The maps as a network gives them in training: they have a gradient and are no leaves, so may be written into."""
    return [copy_in_network(x) for x in maps]


def first_map(out: object) -> torch.Tensor:
    """The first tensor of what a module returned. Raises `TypeError` where there is none."""
    parts = out.values() if isinstance(out, Mapping) else out if isinstance(out, (tuple, list)) else (out,)
    for part in parts:
        if isinstance(part, torch.Tensor):
            return part
    raise TypeError(f"it returns {'None' if out is None else f'a {type(out).__name__}'}, not one feature map")


def rms(tensor: torch.Tensor) -> float:
    """Root mean square of all elements."""
    return float(tensor.detach().double().square().mean().sqrt())


def dtype_name(dtype: torch.dtype) -> str:
    """`float16`, as users write it."""
    return str(dtype).removeprefix("torch.")


def first_line(error: BaseException) -> str:
    """An error as one line: its type and the first thing it says."""
    said = message_of(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def precise(subject: Subject, *, training: bool = False) -> tuple[Callable[[], nn.Module], list[torch.Tensor]]:
    """How to make a fresh module, and its inputs, in double precision, so that a ratio of 2 is 2.

    In single where it only runs so. One module a call: one that remembers its calls is not to be taken for another.
    """
    maps = [x.double() for x in subject.maps()]
    try:
        with torch.no_grad():
            call(subject.module(training=training).double(), [x.clone() for x in maps])
    except RAISED:  # A constant of another dtype inside, most often.
        return lambda: subject.module(training=training), subject.maps()
    return lambda: subject.module(training=training).double(), maps


def subject_of(fusion: FusionSpec, *, channels: int, size: tuple[int, ...], batch: int) -> Subject:
    """The subject for a fusion spec, ours or `pkg.mod:Class`.

    Raises `LoadError` if it cannot be built, `TooLarge` if it and its maps do not fit into memory.
    """
    check_room(
        least_of_case(CaseSpec(fusion=fusion, channels=channels, size=size, batch=batch)), "cpu", what=str(fusion)
    )

    def make() -> nn.Module:
        try:
            return build_fusion(fusion, channels=channels)
        except SystemExit as error:
            raise LoadError(f"{fusion.name} could not be built: it exits (SystemExit: {error})") from error

    with torch.random.fork_rng(devices=[]), quiet("torch", logging.ERROR):
        make()  # what cannot be built is told here, before any check
    return Subject(
        name=fusion.text,
        make=make,
        channels=channels,
        size=size,
        batch=batch,
        inputs=fusion.inputs,
        fusion=fusion,
        known=fusion.grammar is not None,
        targets=targets_of(fusion),
    )
