"""The data of one cell as plain arrays, so that it travels to any process as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from afftool.data.splits import IGNORE
from afftool.errors import DataError
from afftool.study.cells import Task

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

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return int(self.train_images.shape[1]), int(self.train_images.shape[2])


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
