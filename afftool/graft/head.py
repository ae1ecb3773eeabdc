"""The layer that gives a network's classes: found, and replaced by one that gives as many as are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from afftool.errors import LoadError, SpecError
from afftool.graft.trace import does_not_run

CLASS_KEYS = ("num_classes", "classes", "n_classes", "nb_classes", "num_labels", "out_channels")
"""What networks call the number of their classes in their signatures."""
_UNKNOWN = "name the layer that gives its classes, as head=fc, or use the network's own key for them"
_HEADS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def give_classes(
    net: nn.Module, inputs: Sequence[torch.Tensor], classes: int, path: str | None = None, entry: Any = None
) -> nn.Module:
    """`net` with a new layer in the place of its head (at `path`, or found), which gives `classes`.

    It is the last linear layer or convolution that is called and has as many outputs as the network, in that `entry` of
    its output where it gives several; a network that gives so many stays as it is. Raises `LoadError` where the network
    does not run or has no such layer, `SpecError` for a path that is none.
    """
    called: list[tuple[str, nn.Module]] = []
    before = _output(net, inputs, called, entry)
    if path is None and before == classes:
        return net
    if path is None:
        path = next((name for name, layer in reversed(called) if _outputs(layer) == before), None)
        if path is None:
            raise LoadError(
                f"{type(net).__name__} gives {before} outputs, and none of its layers has as many", hint=_UNKNOWN
            )
    try:
        layer = net.get_submodule(path)
    except AttributeError as error:
        heads = [name for name, part in net.named_modules() if isinstance(part, _HEADS)]
        raise SpecError(
            f"head={path} is no part of {type(net).__name__}", hint=f"for example head={heads[-1] if heads else 'fc'}"
        ) from error
    if not isinstance(layer, _HEADS):
        raise SpecError(
            f"head={path} is a {type(layer).__name__}", hint="a linear layer or a convolution gives classes"
        )
    if _outputs(layer) == classes:
        return net
    parent, _, name = path.rpartition(".")
    setattr(net.get_submodule(parent), name, _with_outputs(layer, classes))
    try:
        after = _output(net, inputs, [], entry)
    except LoadError as error:
        raise LoadError(f"once {path} gives {classes} classes, {error.message}", hint=_UNKNOWN) from error
    if after != classes:
        raise LoadError(f"{type(net).__name__} gives {after} outputs once {path} gives {classes}", hint=_UNKNOWN)
    return net


def _outputs(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def _with_outputs(layer: nn.Module, outputs: int) -> nn.Module:
    like = next(layer.parameters())
    if isinstance(layer, nn.Linear):
        made: nn.Module = nn.Linear(layer.in_features, outputs, bias=layer.bias is not None)
    else:
        kind: Any = type(layer)
        made = kind(
            layer.in_channels,
            outputs,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
        )
    return made.to(device=like.device, dtype=like.dtype)


def _output(
    net: nn.Module, inputs: Sequence[torch.Tensor], called: list[tuple[str, nn.Module]], entry: Any = None
) -> int:
    """Channels of the network's output, or of this `entry` of it, and the layers that were `called` on the way."""
    handles = [
        part.register_forward_hook(lambda _m, _x, _y, name=name, part=part: called.append((name, part)))
        for name, part in net.named_modules()
        if isinstance(part, _HEADS)
    ]
    try:
        output = given_by(net, inputs)
    finally:
        for handle in handles:
            handle.remove()
    if entry is not None:
        output = entry_of(output, entry)
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.dim() > 1]
    if len(tensors) != 1:
        raise LoadError(
            f"{type(net).__name__} gives {len(tensors)} tensors, and one should hold its classes", hint=naming(output)
        )
    return int(tensors[0].shape[1])


def given_by(net: nn.Module, inputs: Sequence[torch.Tensor]) -> Any:
    """What the network gives in eval mode, without gradients; its own mode stays. Raises `LoadError` if it fails."""
    training = net.training
    try:
        with torch.no_grad():
            return net.eval()(*inputs)
    except (Exception, SystemExit) as error:
        raise does_not_run(net, inputs, error) from error
    finally:
        net.train(training)


def naming(output: Any) -> str:
    """How the entry of an output that holds the classes is named, for a hint."""
    entries = list(output if isinstance(output, Mapping) else range(len(output)) if isinstance(output, Sized) else ())
    named = "logits" if "logits" in entries or not entries else entries[0]
    of = f", of {', '.join(map(str, entries))}" if entries else ""
    return f"output={named} in its text names the entry that counts{of}"


def entry_of(output: Any, entry: Any) -> Any:
    """One entry of what a network gave. Raises `LoadError` that names those there are."""
    try:
        return output[entry]
    except (KeyError, IndexError, TypeError) as error:
        raise LoadError(f"the network's output has no entry {entry!r}", hint=naming(output)) from error
