"""Checkpoints of the released PyTorch port, loaded so that they give the outputs they were trained for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from afftool.errors import LoadError
from afftool.fusion.attention import MSCAM
from afftool.fusion.build import build_fusion

Kind = Literal["aff", "iaff", "ms-cam", "eres2net-aff"]

_PRESET: dict[str, str] = {"aff": "open-aff", "iaff": "open-iaff", "eres2net-aff": "eres2net-aff"}


def load_open_aff(state_dict: Mapping[str, torch.Tensor], kind: Kind | None = None) -> nn.Module:
    """The released module behind a checkpoint, in eval mode, giving the released outputs.

    Kind, channels, reduction, dimensions (1d to 3d) and dtype are found from the tensors. A released AFF doubles its
    output (gain 2); a released iAFF reuses its first global branch in the second pass, and a warning says that
    `global_att2` was never trained. ERes2Net's AFF, which has a local branch alone, is recognised too. `MS_CAM` has the
    very names and shapes of AFF, so it must be asked for: `kind="ms-cam"` returns a module of one input.
    Names may share a prefix such as `module.`. Raises `LoadError` for anything else.
    """
    tensors = _without_prefix(state_dict)
    found = kind or _kind(tensors)
    weight = tensors.get("local_att.0.weight")
    if weight is None or weight.dim() not in (3, 4, 5):
        raise LoadError("local_att.0.weight is missing or is no convolution", hint=_HINT)
    inner, channels_in = weight.shape[:2]
    channels = channels_in // 2 if found == "eres2net-aff" else channels_in
    if not 1 <= inner <= channels or channels // (channels // inner) != inner:
        raise LoadError(f"local_att.0.weight narrows {channels_in} channels to {inner}, which no reduction gives")
    reduction, ndim = channels // inner, weight.dim() - 2
    module: nn.Module
    if found == "ms-cam":
        module = MSCAM(channels, reduction=reduction, ndim=ndim)
    else:
        module = build_fusion(_PRESET[found], channels=channels, reduction=reduction, ndim=ndim)
    try:
        module.to(weight.dtype).load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise LoadError(f"this is not a released {found}: {error}", hint=_HINT) from error
    if found == "iaff":
        warnings.warn(
            "the released iAFF never calls global_att2, so these weights were never trained; its second pass uses "
            "global_att, and so does this module. build_fusion('iaff', ...) computes the paper's formula instead.",
            stacklevel=2,
        )
    return module.eval()


_HINT = (
    "a released module has local_att.{0,1,3,4} and global_att.{1,2,4,5}, and iAFF the same again as local_att2 "
    "and global_att2; pick one fusion's tensors out of a whole network's checkpoint first"
)


def _kind(tensors: Mapping[str, torch.Tensor]) -> Kind:
    roots = {name.partition(".")[0] for name in tensors}
    for names, kind in (
        ({"local_att", "global_att"}, "aff"),
        ({"local_att", "global_att", "local_att2", "global_att2"}, "iaff"),
        ({"local_att"}, "eres2net-aff"),
    ):
        if roots == names:
            return kind  # type: ignore[return-value]
    raise LoadError(f"no released module has exactly the parts {', '.join(sorted(roots)) or '(none)'}", hint=_HINT)


def _without_prefix(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without what all their names begin with, such as `module.` or `layer1.0.fuse_mode.`."""
    for name, value in state_dict.items():
        if not isinstance(value, torch.Tensor):
            raise LoadError(
                f"{name!r} holds a {type(value).__name__}, not a tensor",
                hint="pass the state dict itself, for example torch.load(path, weights_only=True)['state_dict']",
            )
    prefixes = {name.rpartition("local_att")[0] for name in state_dict if "local_att" in name}
    if len(prefixes) > 1:
        raise LoadError(f"{len(prefixes)} fusions are in this state dict", hint=_HINT)
    prefix = prefixes.pop() if prefixes else ""
    return {name.removeprefix(prefix): value for name, value in state_dict.items()}
