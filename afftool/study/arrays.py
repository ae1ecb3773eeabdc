"""The data of one cell as plain arrays, so that it travels to any process as it is, and the batches of an epoch.

Whole batches are cropped, flipped and mixed where the images lie; every draw of an epoch is made at once, from one key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from afftool.data.splits import IGNORE
from afftool.errors import DataError
from afftool.study.cells import Task
from afftool.study.recipe import Recipe
from afftool.study.seeding import generator, key

if TYPE_CHECKING:
    from afftool.data.splits import Split, Splits


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """Images `(N, H, W, 3)` uint8, channels last as the network wants them, with labels `(N,)` or masks `(N, H, W)`.

    `mean` and `std` are the training images' per channel, in [0, 255]. Void pixels are `IGNORE`.
    """

    task: Task
    classes: int
    train_images: NDArray[np.uint8]
    train_targets: NDArray[Any]
    test_images: NDArray[np.uint8]
    test_targets: NDArray[Any]
    test_bands: NDArray[np.uint8] | None
    bands: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Its small fields, and its arrays, each by name: `Arrays(**small, **large)` is the same again."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        large = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
        return {name: value for name, value in fields.items() if name not in large}, large

    def sharing_tests(self, other: Arrays) -> Arrays:
        """The same, with the other's test arrays themselves if its own are equal to them, so that there is one copy."""
        _, mine = self.parts()
        _, theirs = other.parts()
        names = {name for name in mine.keys() | theirs.keys() if name.startswith("test_")}
        alike = all(name in mine and name in theirs and np.array_equal(mine[name], theirs[name]) for name in names)
        shared: dict[str, Any] = {name: theirs[name] for name in names}
        return dataclasses.replace(self, **shared) if alike else self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return int(self.train_images.shape[1]), int(self.train_images.shape[2])


Subsets = Mapping[str, Arrays]
"""The data that a study's cells train on, by fingerprint: the same for all, or a few training subsets."""


def arrays(splits: Splits, task: Task) -> Arrays:
    """What a cell of `task` needs of the splits. Raises `DataError` if they have no such targets."""
    train, test = _targets(splits, splits.train, task), _targets(splits, splits.test, task)
    mean, std = _moments(splits.train.images)
    return Arrays(
        task=task,
        classes=len(splits.classes if task == "classify" else splits.mask_classes),
        train_images=_channels_last(splits.train.images),
        train_targets=train,
        test_images=_channels_last(splits.test.images),
        test_targets=test,
        test_bands=splits.test.bands,
        bands=splits.bands,
        mean=mean,
        std=std,
    )


def _channels_last(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def _targets(splits: Splits, split: Split, task: Task) -> NDArray[Any]:
    if task == "classify":
        if split.labels is None:
            raise DataError(
                f"{splits.name} has masks and no class labels, and this host classifies",
                hint="use --host fpn for masks",
            )
        return split.labels
    if split.masks is None:
        raise DataError(
            f"{splits.name} has class labels and no masks, and this host segments",
            hint="use a classification host, for example --host resnet, or data with masks",
        )
    masks = split.masks
    return masks if splits.void is None else np.where(masks == splits.void, np.uint8(IGNORE), masks)


def _moments(images: NDArray[np.uint8]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation per channel, from exact integer counts, so that no order of summing shows."""
    values = np.arange(256)
    counts = np.stack([np.bincount(images[:, channel].reshape(-1), minlength=256) for channel in range(3)])
    totals = counts.sum(axis=1)
    mean = (counts @ values) / totals
    variance = (counts @ values**2) / totals - mean**2
    std = np.sqrt(np.maximum(variance, 1.0))
    return tuple(map(float, mean)), tuple(map(float, std))  # type: ignore[return-value]


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
