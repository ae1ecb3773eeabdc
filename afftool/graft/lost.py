"""What a forward does that its graph would lose: refused while it is traced, since nothing afterwards could tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from afftool.errors import LoadError
from afftool.global_settings.randomness import generators


@contextmanager
def one_course(net: nn.Module) -> Iterator[None]:
    """Refuse a forward that draws from Python's or NumPy's numbers: a graph would keep what it drew this once."""
    dice = [setting for setting in generators() if "torch" not in setting.name]
    before = [one.read() for one in dice]
    try:
        yield
    finally:
        drawn = [(one, state) for one, state in zip(dice, before, strict=True) if one.read() != state]
        for one, state in drawn:
            one.write(state)
    if drawn:
        raise LoadError(
            f"the forward of {type(net).__name__} draws from {' and '.join(one.name for one, _ in drawn)}, and its "
            "graph would keep what was drawn once for every step",
            hint="draw from torch's numbers there, which a graph draws anew",
        )


@contextmanager
def every_gradient(net: nn.Module) -> Iterator[None]:
    """Refuse a forward that changes a gradient by a hook on a tensor, which a graph does not have."""
    own = torch.Tensor.register_hook

    def refused(_tensor: torch.Tensor, _hook: Callable[..., Any]) -> Any:
        raise LoadError(
            f"the forward of {type(net).__name__} hooks the gradient of a map, which its graph would not",
            hint="write what the hook does as an autograd.Function, which is kept, or leave the hook out",
        )

    torch.Tensor.register_hook = refused  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.register_hook = own  # type: ignore[method-assign]


def check_parts(net: nn.Module) -> None:
    """Refuse a part with a hook on its backward pass, which runs in no graph. Raises `LoadError`."""
    for path, part in net.named_modules():
        if path and (part._backward_hooks or part._backward_pre_hooks):
            raise LoadError(
                f"{path} of {type(net).__name__} has a hook on its backward pass, which its graph would lose",
                hint="write what the hook does as an autograd.Function, which is kept, or leave the hook out",
            )


@contextmanager
def no_inference(net: nn.Module) -> Iterator[None]:
    """Refuse a forward that turns on inference mode, which the exporter does not note: gradients would flow there."""
    own = torch.inference_mode.__enter__

    def refused(self: torch.inference_mode) -> None:
        if self.mode:
            raise LoadError(
                f"the forward of {type(net).__name__} turns on torch.inference_mode, which its graph would lose",
                hint="torch.no_grad does the same there, and is kept",
            )
        own(self)

    torch.inference_mode.__enter__ = refused  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.inference_mode.__enter__ = own  # type: ignore[method-assign]


@contextmanager
def counted(net: nn.Module) -> Iterator[dict[tuple[str, str], float]]:
    """What numbers among its parts' attributes a call has moved to, by path and name; the exporter puts them back."""
    before = {path: dict(vars(part)) for path, part in net.named_modules()}
    moved: dict[tuple[str, str], float] = {}

    def note(_module: nn.Module, _given: Any, _output: Any) -> None:
        for path, part in net.named_modules():
            for name, value in vars(part).items():
                was = before.get(path, {}).get(name, getattr(type(part), name, None))
                if isinstance(value, int | float) and isinstance(was, int | float) and value != was:
                    moved[path, name] = value

    handle = net.register_forward_hook(note)
    try:
        yield moved
    finally:
        handle.remove()


def check_next(
    net: nn.Module,
    twin: nn.Module,
    program: torch.export.ExportedProgram,
    moved: Mapping[tuple[str, str], float],
    given: tuple[torch.Tensor, ...],
    sizes: tuple[Any, ...],
) -> None:
    """Refuse a network whose next call is another, since the first has `moved` numbers. Raises `LoadError`."""
    was = {(path, name): getattr(twin.get_submodule(path), name) for path, name in moved}
    try:
        for (path, name), value in moved.items():
            setattr(twin.get_submodule(path), name, value)
        again = torch.export.export(twin, given, dynamic_shapes=sizes, strict=False)
    finally:
        for (path, name), value in was.items():
            setattr(twin.get_submodule(path), name, value)
    if program.graph_module.code != again.graph_module.code:
        counted = ", ".join(f"{path}.{name}".lstrip(".") for path, name in moved)
        raise LoadError(
            f"the forward of {type(net).__name__} counts in {counted} what it then works with, and its graph would "
            "keep what that was in the first call",
            hint="keep it in a buffer, which a graph reads and writes",
        )
