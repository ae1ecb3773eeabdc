"""Lazy layers, which learn their widths from the first call: a dry one gives them their weights and leaves no trace."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from afftool.errors import AfftoolError, LoadError


def lazy_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The parts of `module` that have no weights yet, by their paths."""
    return {
        path: part
        for path, part in module.named_modules()
        if any(is_lazy(tensor) for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)))
    }


def settle(module: nn.Module, inputs: Sequence[torch.Tensor]) -> nn.Module:
    """Give the lazy layers of `module` their weights by calling it on copies of `inputs`; nothing else of it changes.

    It runs without gradients as in eval, so that no statistics move, and as in training too where layers are left that
    only then are called. What it draws comes from the generators as they stand: the caller keeps them. Returns the
    module. Raises `LoadError` where the call fails, or leaves a layer without weights.
    """
    if not lazy_layers(module):
        return module
    flags = [(part, part.training) for part in module.modules()]
    name = type(module).__name__
    try:
        with torch.no_grad():
            for training in (False, True):
                if waiting := lazy_layers(module):
                    _call(module, inputs, training, [*waiting.values()])
    except AfftoolError:
        raise
    except (Exception, SystemExit) as error:
        shapes = " and ".join(str(tuple(x.shape)) for x in inputs)
        raise LoadError(
            f"{name} has lazy layers, and the call that gives them their weights fails: "
            f"{type(error).__name__}: {error}",
            hint=f"it was called on {shapes}; call it on inputs of these shapes yourself to see the whole traceback",
        ) from error
    finally:
        for part, flag in flags:
            part.training = flag
    if left := lazy_layers(module):
        raise LoadError(
            f"{name} has lazy layers that no call reaches: {', '.join(left)}",
            hint="they never get weights; take them out, or call them",
        )
    return module


def _call(module: nn.Module, inputs: Sequence[torch.Tensor], training: bool, waiting: Sequence[nn.Module]) -> None:
    """Call it once as in training or not; the buffers that were there, and the statistics of the `waiting`, stay."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers() if not is_lazy(buffer)]
    for part in module.modules():
        part.training = training  # `train` and `eval` may be overridden, and do more
    module(*(x.detach().clone() for x in inputs))
    for buffer, before in buffers:
        buffer.copy_(before)
    for part in waiting if training else ():
        if isinstance(part, nn.modules.batchnorm._NormBase) and not lazy_layers(part):
            part.reset_running_stats()
