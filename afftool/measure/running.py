"""Around a module that runs: which of its modules is at work, and the garbage collector kept waiting."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle


@contextmanager
def no_collection() -> Iterator[None]:
    """Let garbage lie meanwhile; afterwards the collector is on again if it was before."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def followed(
    modules: Mapping[str, nn.Module],
    *,
    enter: Callable[[str], None],
    leave: Callable[[str, Any, Any], None],
    around_hooks: bool = False,
) -> Iterator[None]:
    """Have `enter(path)` called before each call of one of `modules`, and `leave(path, inputs, output)` after.

    A call that fails is left too, with None as its output. What a scripted or traced module calls inside runs without
    Python and is not told: only the outermost is. `around_hooks` makes what a module's own hooks do before it (as those
    of a spectral norm) part of its call. The hooks set here are gone afterwards.
    """
    handles: list[RemovableHandle] = []
    scripted: dict[int, str] = {}
    for path, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule):
            scripted[id(module)] = path
        else:
            handles.append(module.register_forward_pre_hook(lambda *_, path=path: enter(path), prepend=around_hooks))
            handles.append(
                module.register_forward_hook(
                    lambda _module, inputs, output, path=path: leave(path, inputs, output), always_call=True
                )
            )
    if scripted:
        handles += _of_all_modules(scripted, enter, leave)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _of_all_modules(
    scripted: Mapping[int, str], enter: Callable[[str], None], leave: Callable[[str, Any, Any], None]
) -> list[RemovableHandle]:
    """Scripted modules take no hooks of their own, but those that hang on every module see them."""

    def before(module: nn.Module, _inputs: Any) -> None:
        if (path := scripted.get(id(module))) is not None:
            enter(path)

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        if (path := scripted.get(id(module))) is not None:
            leave(path, inputs, output)

    return [register_module_forward_pre_hook(before), register_module_forward_hook(after, always_call=True)]
