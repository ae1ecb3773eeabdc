"""Marks every module's forward pass in a trace, by its path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.profiler import record_function

from afftool.profile.trace import MODULE


@contextmanager
def annotated(module: nn.Module) -> Iterator[None]:
    """While open, each call of `module` and of its submodules is a block named `nn.Module: path (Type)`.

    The module itself has the path `.`; hooks only, nothing about it changes and all are gone afterwards.
    """
    handles = []
    blocks: list[Any] = []
    for path, submodule in module.named_modules():
        name = f"{MODULE}{path or '.'} ({type(submodule).__name__})"

        def enter(_module: nn.Module, _inputs: Any, name: str = name) -> None:
            block = record_function(name)
            block.__enter__()  # type: ignore[no-untyped-call]
            blocks.append(block)

        def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            blocks.pop().__exit__(None, None, None)

        handles.append(submodule.register_forward_pre_hook(enter, prepend=True))
        handles.append(submodule.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
