"""A cell's network: the host with its fusions, initialised by seed and parameter name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from afftool.errors import AfftoolError, LoadError, ShapeError
from afftool.fusion import build_fusion
from afftool.graft.head import naming
from afftool.graft.join import start_neutral
from afftool.hosts import build_host
from afftool.lazy import lazy_layers, settle
from afftool.measure.running import followed
from afftool.room import check_room, least_of_case
from afftool.spec import CaseSpec, FusionSpec, HostSpec
from afftool.study.recipe import Init
from afftool.study.seeding import generator, key, seeded

XAVIER = ("resnext", "resnext50")
"""Hosts that start from Xavier's initialisation (Table 2); the others start from Kaiming's."""


Start = dict[str, str]


@dataclass(frozen=True)
class Network:
    """A host and the fusions in it, by their names in the host, in the order they were built."""

    host: HostSpec
    fusion: FusionSpec
    module: nn.Module
    fusions: dict[str, nn.Module]

    @property
    def params(self) -> int:
        """Parameters of the whole network."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def host_start(self) -> Start:
        """A digest of each of the host's own parameters, by name."""
        inside = {id(parameter) for fusion in self.fusions.values() for parameter in fusion.parameters()}
        return {
            name: hashlib.sha256(parameter.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
            for name, parameter in self.module.named_parameters()
            if id(parameter) not in inside
        }


def build_network(
    host: HostSpec,
    fusion: FusionSpec,
    *,
    seed: int,
    draw: str = "",
    init: Init = "host",
    size: tuple[int, ...] | None = None,
) -> Network:
    """Build a host around a fusion; the same seed gives the same weights wherever names and shapes agree.

    Weights of convolutions and linear layers are drawn by `init` from a generator keyed by seed and name, biases
    start at zero and norms as PyTorch starts them. `draw` is mixed into the keys of the fusions alone.

    `init="host"` draws as the host's builder does (Table 2: Xavier for ResNeXt, Kaiming for the others). What is the
    user's own, fusion or host, then keeps what its constructor gave it, because that is part of its design: a fusion
    drawn from a generator keyed by seed and place, a host from one keyed by seed that fusions do not touch. A named
    `init` draws the user's own weights too. Lazy layers learn their widths from an image of `size`, and each then draws
    from a generator keyed by its name. Raises `TooLarge` for a network of ours whose weights do not fit.
    """
    alone = CaseSpec(fusion=fusion, host=host, channels=None, size=size or (32, 32), batch=1)
    check_room(least_of_case(alone), "cpu", what=f"{fusion} in {host}")
    scheme = _scheme(host) if init == "host" else init
    built: list[nn.Module] = []

    def factory(channels: int, **settings: object) -> nn.Module:
        with seeded(seed, draw, "fusion", len(built)):
            built.append(build_fusion(fusion, channels=channels, **settings))
        return built[-1]

    # Two passes. The constructors draw first, each fusion inside a generator of its own (`factory`), so that the host's
    # numbers do not depend on how many its fusions took; then every weight of ours is drawn anew by its name.
    with seeded(seed, "host"):
        shapes = alone.input_shapes() if size is not None else None
        module = build_host(host, None if fusion.original else factory, shapes=shapes)
    names = {id(part): name for name, part in module.named_modules()}
    fusions = {names[id(part)]: part for part in built if id(part) in names}
    inside = {id(part): place for place, fused in fusions.items() for part in fused.modules()}
    waiting = lazy_layers(module)
    if size is not None and waiting:
        with seeded(seed, "lazy"):
            settle(module, (torch.randn(1, 3, *size),))
        for path, layer in waiting.items():
            with seeded(seed, draw if id(layer) in inside else "", "lazy", path):
                if callable(again := getattr(layer, "reset_parameters", None)):
                    again()  # the call drew one after the other: the host's would depend on the fusion's
    for name, part in module.named_modules():
        fused = id(part) in inside
        own = fusion.grammar is None if fused else host.target is not None
        if own and init == "host":
            continue
        _draw(part, name, (seed, draw) if fused else (seed, ""), scheme)
    if host.graft is not None and host.graft.init == "neutral":
        for part in fusions.values():
            start_neutral(part)  # once more: some of what it set is a weight that was drawn anew
    return Network(host, fusion, module, fusions)


def _scheme(host: HostSpec) -> Init:
    return "xavier" if host.name in XAVIER else "kaiming"


def _draw(part: nn.Module, name: str, keys: tuple[object, ...], init: Init) -> None:
    if not isinstance(part, nn.modules.conv._ConvNd | nn.Linear):
        return
    random = generator(*keys, f"{name}.weight")
    with torch.no_grad():
        if init == "kaiming":
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu", generator=random)
        else:
            nn.init.xavier_uniform_(part.weight, generator=random)
        if part.bias is not None:
            part.bias.zero_()


@contextmanager
def watched(network: Network) -> Iterator[list[tuple[str, Tensor, Tensor]]]:
    """Collect (name, first input, output) of every fusion during the forward passes inside, in their order."""
    seen: list[tuple[str, Tensor, Tensor]] = []

    def note(name: str, inputs: Any, output: Any) -> None:
        if output is not None:  # the call did not fail
            seen.append((name, inputs[0], output))

    with followed(network.fusions, enter=lambda _name: None, leave=note):
        yield seen


def signal(network: Network, images: Tensor) -> tuple[float, ...]:
    """Root mean square of every fusion's output for `images`, as in training; buffers are left as they were."""
    buffers = {name: buffer.clone() for name, buffer in network.module.named_buffers()}
    training = network.module.training
    with torch.no_grad(), seeded("signal"), watched(network) as seen:
        network.module.train()
        network.module(images)
    for name, buffer in network.module.named_buffers():
        buffer.copy_(buffers[name])
    network.module.train(training)
    return tuple(float(output.float().square().mean().sqrt()) for _, _, output in seen)


def probe(network: Network, images: Tensor) -> tuple[Tensor, int]:
    """One training step's forward and backward on a few images, to find out now what would fail later.

    Returns the output, `(N, classes)` or `(N, classes, H, W)`, and how many times a fusion was run. Raises `ShapeError`
    for a fusion that changes its maps' shape, `LoadError` for one that raises, or for a host whose output fits neither.
    """
    fusion, host = network.fusion, network.host
    with seeded("probe"), watched(network) as seen:
        try:
            output: Tensor = network.module.train()(images)
        except AfftoolError:
            raise
        except Exception as error:
            _check_shapes(seen, fusion)  # a wrong shape is the likeliest reason, and the better message
            raise LoadError(
                f"{fusion} in {host} fails on images {tuple(images.shape)}: {type(error).__name__}: {error}",
                hint="`afftool inspect` looks at a module alone",
            ) from error
        _check_shapes(seen, fusion)
        if not isinstance(output, Tensor) or output.ndim not in (2, 4) or len(output) != len(images):
            shape = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise LoadError(f"{host} gives {shape} for {len(images)} images", hint=_wanted(host, output))
        if output.ndim == 4 and output.shape[2:] != images.shape[2:]:
            raise LoadError(
                f"{host} gives maps {tuple(output.shape[2:])} for images {tuple(images.shape[2:])}",
                hint="upsample the logits to the images' size inside the host",
            )
        try:
            if output.requires_grad:
                torch.autograd.backward(output.float().square().mean())
        except Exception as error:
            raise LoadError(
                f"{fusion} in {host} fails in the backward pass: {type(error).__name__}: {error}",
                hint="a map changed in place after it was saved for backward is the usual reason",
            ) from error
    network.module.zero_grad(set_to_none=True)
    return output.detach(), len(seen)


def _wanted(host: HostSpec, output: Any) -> str:
    """What a network should give, and how one entry of what a grafted one gives is named."""
    named = host.graft is not None and host.graft.output is None and not isinstance(output, Tensor)
    return f"logits (N, classes[, H, W]){f'; {naming(output)}' if named else ''}"


def _check_shapes(seen: list[tuple[str, Tensor, Tensor]], fusion: FusionSpec) -> None:
    for name, x, output in seen:
        if not isinstance(output, Tensor) or output.shape != x.shape:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ShapeError(
                f"{fusion} (at {name}) fuses maps {tuple(x.shape)} into {got}",
                hint="a fusion returns one map of its inputs' shape",
            )


__all__ = ["Network", "build_network", "key", "probe", "signal", "watched"]
