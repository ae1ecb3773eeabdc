"""Widths that vanish: a hidden width of 0, and groups that do not divide, told as what they are.

`channels // reduction` leaves nothing of few channels. torch builds such layers with a warning that says nothing, and
what they compute is a constant: a number of it would be of a dead module.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.parameter import is_lazy

from afftool.errors import LoadError

_GROUPED = {"_ConvNd": ("groups", "in_channels", "out_channels"), "GroupNorm": ("num_groups", "num_channels")}
_GROUPED |= {"MultiheadAttention": ("num_heads", "embed_dim"), "ChannelShuffle": ("groups",)}
"""What a layer divides by, and what it divides, by the names in its constructor."""


@contextmanager
def without_torchs_words() -> Iterator[None]:
    """Silence what torch says of a layer that has no weights: it is told in better words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors is a no-op")
        yield


def check_widths(name: str, module: nn.Module, channels: int) -> None:
    """Refuse a module with a layer of no channels. Raises `LoadError`."""
    for path, layer in module.named_modules():
        for key, parameter in layer.named_parameters(recurse=False):
            # an empty vector may be a placeholder of the author's; an empty matrix, or norm, is a width that vanished
            if not is_lazy(parameter) and 0 in parameter.shape and (parameter.dim() > 1 or key == "weight"):
                raise LoadError(
                    f"{name}: its hidden width is 0 at {channels} channels: {path or 'it'} is "
                    f"{type(layer).__name__} with {key} {tuple(parameter.shape)}",
                    hint="a smaller reduction, or more channels, leaves some; max(1, ...) in the module keeps one",
                )


def told_as_width(name: str, error: LoadError, channels: int) -> LoadError:
    """The error of a module that could not be built, in the words of a width where that is what failed."""
    cause = error.__cause__
    if cause is None or isinstance(cause, SystemExit):
        return error
    what = _what_does_not_divide(cause)
    if what is None:
        if not isinstance(cause, ZeroDivisionError):
            return error
        what = "it divides by 0: a width or a number of groups that it works out from the channels is 0"
    told = LoadError(f"{name} cannot be built at {channels} channels: {what} ({type(cause).__name__}: {cause})")
    told.hint = f"other channels, or another reduction or number of groups; {error.hint}"
    told.__cause__ = cause
    return told


def _what_does_not_divide(error: BaseException) -> str | None:
    """The groups, and the width, that the layer which failed was to have; None where it was no such layer."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return None
    found = trace.tb_frame.f_locals
    kinds = [kind.__name__ for kind in type(found.get("self")).__mro__]
    for kind, (divisor, *widths) in _GROUPED.items():
        parts = found.get(divisor)
        if kind not in kinds or not isinstance(parts, int):
            continue
        word = "heads" if divisor == "num_heads" else "groups"
        layer = kinds[0]
        if parts < 1:
            return f"its {layer} would have {parts} {word}"
        for width in widths:
            whole = found.get(width)
            if isinstance(whole, int) and whole % parts:
                return f"its {layer} has {parts} {word}, which do not divide its {whole} channels"
            if whole == 0:
                return f"its {layer} would have 0 channels: its hidden width is 0 at that width"
    if isinstance(size := found.get("hidden_size"), int) and size < 1:
        return f"its {kinds[0]} has a hidden width of {size}"
    return None
