"""Crop, flip and mix whole batches where the images lie; every draw of an epoch is made at once, from one key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from afftool.data.splits import IGNORE
from afftool.study.recipe import Recipe
from afftool.study.seeding import generator, key


@dataclass(frozen=True)
class Batch:
    """Raw images `(B, H, W, 3)` uint8 with targets; with mixup, each image is `share` itself, the rest its partner."""

    images: Tensor
    targets: Tensor
    share: float = 1.0


def batches(images: Tensor, targets: Tensor, recipe: Recipe, seed: int, epoch: int) -> Iterator[Batch]:
    """One epoch's batches in the order of `seed` and `epoch`; an incomplete last batch is left out.

    The draws are made on the CPU, so that the order is the same on every device.
    """
    count, device = len(images), images.device
    random = generator(seed, "batches", epoch)
    order = torch.randperm(count, generator=random).to(device)
    crop = round(recipe.crop * min(images.shape[1:3]))
    span = 2 * crop + 1
    tops = torch.randint(span, (count,), generator=random).to(device)
    lefts = torch.randint(span, (count,), generator=random).to(device)
    flips = (torch.rand(count, generator=random) < 0.5).to(device)
    shares = np.random.default_rng(key(seed, "mixup", epoch))
    for start in range(0, count - recipe.batch + 1, recipe.batch):
        part = order[start : start + recipe.batch]
        flip = flips[part] if recipe.flip else None
        cut = (tops[part], lefts[part], flip, crop)
        chosen = targets[part]
        share = float(shares.beta(recipe.mixup, recipe.mixup)) if recipe.mixup else 1.0
        yield Batch(
            _cut(images[part], *cut, fill=0), _cut(chosen, *cut, fill=IGNORE) if chosen.ndim > 1 else chosen, share
        )


def _cut(maps: Tensor, tops: Tensor, lefts: Tensor, flips: Tensor | None, crop: int, *, fill: int) -> Tensor:
    """Pad `(B, H, W[, 3])` by `crop`, cut it back to its size at each map's own place, and mirror those to flip."""
    if not crop and flips is None:
        return maps
    batch, height, width = maps.shape[:3]
    if crop:
        maps = pad(maps, (0, 0) * (maps.ndim - 3) + (crop, crop, crop, crop), value=fill)
    else:
        tops = lefts = torch.zeros_like(tops)
    rows = tops[:, None] + torch.arange(height, device=maps.device)
    across = torch.arange(width, device=maps.device).expand(batch, width)
    if flips is not None:
        across = torch.where(flips[:, None], width - 1 - across, across)
    columns = lefts[:, None] + across
    which = torch.arange(batch, device=maps.device)
    return maps[which[:, None, None], rows[:, :, None], columns[:, None, :]]
