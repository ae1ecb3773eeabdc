"""What a host looks like from outside: its stages, and where it fuses. Works for any network, ours or the user's.

The host is built around a factory whose modules only take notes, on the meta device, and run once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from afftool.copying import move_to_meta
from afftool.errors import AfftoolError, LoadError, ShapeError
from afftool.fusion import FusionFactory


@dataclass(frozen=True)
class Fused:
    """One fusion: in which block of its stage (from 1), and the channels and size of the maps it fuses."""

    block: int
    channels: int
    size: tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """One part of a host: its blocks, and the channels and size it gives out (None if nothing called it)."""

    name: str
    blocks: int
    channels: int | None
    size: tuple[int, ...] | None
    fuses: tuple[Fused, ...]


def read_stages(build: Callable[[FusionFactory], nn.Module], size: int) -> tuple[Stage, ...]:
    """Run the host that `build` gives on one image `(1, 3, size, size)` and note its stages.

    A stage is a child of the network; a list of modules, which is never called itself, counts by its members.
    Raises `LoadError` if the host cannot run on the meta device.
    """
    host = _without_memory(build).eval()
    image = torch.empty(1, 3, size, size, device="meta")
    seen: dict[nn.Module, torch.Size] = {}

    def note(module: nn.Module, inputs: object, outputs: object) -> None:
        tensors = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
        if tensors:
            seen[module] = tensors[-1].shape

    units = list(_units(host))
    handles = [unit.register_forward_hook(note) for _, unit in units]
    try:
        with torch.no_grad():
            host(image)
    except AfftoolError:
        raise
    except Exception as error:
        raise LoadError(
            f"the host does not run on the meta device: {type(error).__name__}: {error}",
            hint=f"it is given one image of shape {tuple(image.shape)}; nothing in its forward may look at values",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return tuple(_stage(name, unit, seen.get(unit)) for name, unit in units)


def _without_memory(build: Callable[[FusionFactory], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build(_Note)
        except LoadError:  # a constructor that needs values, as `torch.linspace(...).tolist()` does
            return move_to_meta(build(_Note))


class _Note(nn.Module):
    """Stands for a fusion: gives back its first map and remembers what it was asked to fuse."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.size: tuple[int, ...] = ()

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        for map_ in (x, *others):
            if map_.shape != x.shape or map_.shape[1] != self.channels:
                shapes = " and ".join(str(tuple(m.shape)) for m in (x, *others))
                raise ShapeError(
                    f"the host fuses maps of shapes {shapes} with a fusion built for {self.channels} channels",
                    hint="call the factory with the channels of the maps, and make their shapes equal first",
                )
        self.size = tuple(x.shape[2:])
        return x.clone()


def _units(host: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    children = list(host.named_children())
    # What only wraps the network (`self.net = ...`) is looked through; a lone sequence or a lone fusion is a stage.
    if len(children) == 1 and any(True for _ in children[0][1].children()):
        name, only = children[0]
        if not isinstance(only, nn.Sequential | _Note):
            yield from _units(only, f"{prefix}{name}.")
            return
    for name, child in children:
        if isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from ((f"{prefix}{name}.{key}", member) for key, member in child.named_children())
        else:
            yield prefix + name, child


def _stage(name: str, unit: nn.Module, shape: torch.Size | None) -> Stage:
    # A sequence of plain layers, such as a stem, is one block; a sequence of modules with parts is as many.
    staged = isinstance(unit, nn.Sequential) and any(any(True for _ in block.children()) for block in unit)
    blocks: list[nn.Module] = list(unit.children()) if staged else [unit]
    fuses = tuple(
        Fused(number, note.channels, note.size)
        for number, block in enumerate(blocks, start=1)
        for note in block.modules()
        if isinstance(note, _Note)
    )
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    return Stage(name, len(blocks), channels, None if shape is None else tuple(shape[2:]), fuses)
