"""Whether a module of the user's own gives, at a site, what its network expects there: told before anything is run."""

from __future__ import annotations

import torch
from torch import nn

from afftool.copying import meta_copy
from afftool.errors import LoadError, ShapeError
from afftool.spec.site import Site
from afftool.spec.text import show_size


def check_shape(site: Site, fusion: nn.Module) -> None:
    """Call a copy of the fusion on maps of the site's shape, on the meta device. Raises `ShapeError` and `LoadError`.

    What cannot be copied, or needs values that the meta device does not have, passes: only a call can tell.
    """
    shape = (2, site.width, *site.size)
    where = f"at site {site.number} ({site.kind} in {site.where}, {site.line})"
    maps = " and ".join(["x".join(map(str, shape))] * len(site.channels))
    hint = f"a fusion gives one map of the shape of those it is given; or {without(site)}"
    like = next((p for p in fusion.parameters() if p.is_floating_point()), torch.empty(()))
    try:
        twin = meta_copy(fusion).eval()
    except Exception:
        return
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            given = twin(*(torch.empty(shape, dtype=like.dtype, device="meta") for _ in site.channels))
    except (NotImplementedError, AttributeError):
        return
    except Exception as error:
        if "meta" in str(error):  # it looks at values
            return
        raise LoadError(
            f"{type(fusion).__name__} {where} does not run on {maps}: {type(error).__name__}: {error}", hint=hint
        ) from error
    if not isinstance(given, torch.Tensor):
        raise ShapeError(f"{type(fusion).__name__} {where} gives a {type(given).__name__}, not a map", hint=hint)
    if tuple(given.shape) != shape:
        raise ShapeError(
            f"{type(fusion).__name__} {where} gives {show_size(given.shape)} of {maps}, and its network expects "
            f"{show_size(shape)} there",
            hint=hint,
        )


def without(site: Site) -> str:
    """What to do where a site cannot be had, for a hint."""
    others = f"at=1-{site.number - 1}" if site.number > 1 else "at=2+3"
    return f"leave it out: name the sites, as {others}"
