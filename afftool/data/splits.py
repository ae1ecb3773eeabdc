"""What every source returns: images, labels or masks in memory, checked once, with a fingerprint of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afftool.errors import DataError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]
IGNORE = 255
"""The mask value that is never a class: training and mIoU see void pixels as this, whatever the files call them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images `(N, 3, H, W)` uint8 with `labels (N,)` int64, `masks (N, H, W)` uint8, or both.

    `bands (N,)` uint8 is each image's object-size band, an index into `Splits.bands`, where that is known.
    """

    images: Images
    labels: Labels | None = None
    masks: NDArray[np.uint8] | None = None
    bands: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """A dataset ready to train on. One that exists is consistent: shapes, label ranges, no class without images.

    `classes` name the labels, `mask_classes` the values of the masks; `void` is the mask value to ignore. `val` is
    there only where the source has a third split. `note` says what the source had to assume. Raises `DataError`.
    """

    name: str
    train: Split
    test: Split
    val: Split | None = None
    classes: tuple[str, ...] = ()
    mask_classes: tuple[str, ...] = ()
    void: int | None = None
    bands: tuple[str, ...] = ()
    citation: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        for part, split in self:
            _check_split(f"{self.name}, {part} split", split, self)
        if self.train.labels is not None:
            counts = np.bincount(self.train.labels, minlength=len(self.classes))
            if (empty := np.flatnonzero(counts == 0)).size:
                raise DataError(
                    f"{self.name}: no training image of class {self.classes[int(empty[0])]!r} "
                    f"({empty.size} of {len(self.classes)} classes are empty)",
                    hint="use more training images, or remove the class",
                )

    def __iter__(self) -> Iterator[tuple[str, Split]]:
        yield "train", self.train
        if self.val is not None:
            yield "val", self.val
        yield "test", self.test

    @cached_property
    def fingerprint(self) -> str:
        """A short hash over every byte of the content and what it means: equal data, equal fingerprint, anywhere."""
        digest = hashlib.sha256(repr((self.classes, self.mask_classes, self.void, self.bands)).encode())
        for part, split in self:
            for field in ("images", "labels", "masks", "bands"):
                array: NDArray[Any] | None = getattr(split, field)
                if array is not None:
                    digest.update(f"{part}.{field} {array.dtype.str} {array.shape}".encode())
                    digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


def choose(labels: Labels, count: int | None, seed: int, name: str) -> Indices:
    """Indices, ascending, of a stratified subset: every class keeps its share, and at least one image if they fit.

    The shares are rounded by largest remainder. All indices for `count` None. Raises `DataError` if there are fewer.
    """
    if count is None:
        return np.arange(len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    _check_count(len(labels), count, name)
    if count < len(classes):
        raise DataError(
            f"{name}: {count} training images cannot hold its {len(classes)} classes",
            hint=f"use --train-images {len(classes)} or more",
        )
    ideal = sizes * (count / len(labels))
    quota = np.maximum(np.floor(ideal).astype(np.int64), 1)
    rng = np.random.default_rng([seed, count])
    tie = rng.permutation(len(classes))
    while (missing := count - int(quota.sum())) != 0:
        step = 1 if missing > 0 else -1
        gap = np.where(quota < sizes if missing > 0 else quota > 1, (ideal - quota) * step, -np.inf)
        # One step each for the largest gaps at once, short of where the first of them would be due again.
        due = np.lexsort((tie, -gap))[: min(abs(missing), int((gap > gap.max() - 1).sum()))]
        quota[due] += step
    ends = np.cumsum(sizes)
    members = np.split(np.argsort(labels, kind="stable"), ends[:-1])
    return np.sort(np.concatenate([rng.permutation(some)[:keep] for some, keep in zip(members, quota, strict=True)]))


def choose_any(total: int, count: int | None, seed: int, name: str) -> Indices:
    """Indices, ascending, of a random subset where there are no labels to stratify by. Raises `DataError`."""
    if count is None:
        return np.arange(total)
    _check_count(total, count, name)
    return np.sort(np.random.default_rng([seed, count]).permutation(total)[:count])


def _check_count(total: int, count: int, name: str) -> None:
    if count > total:
        raise DataError(
            f"{name} has {total} training images, {count} were asked for",
            hint=f"use --train-images {total} or less, or leave it out",
        )


def _check_split(where: str, split: Split, whole: Splits) -> None:
    images, labels, masks = split.images, split.labels, split.masks
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8:
        raise DataError(f"{where}: images are {images.dtype} {images.shape}", hint="uint8 (N, 3, H, W) is needed")
    if not len(images):
        raise DataError(f"{where} is empty", hint="check that the path holds the whole dataset")
    if images.shape[1:] != whole.train.images.shape[1:]:
        raise DataError(
            f"{where}: its images are {_extent(images)}, the training images {_extent(whole.train.images)}",
            hint="give all images one size, for example with :size=32 where the source takes it",
        )
    for kind, values, shape in (("labels", labels, images.shape[:1]), ("masks", masks, _spatial(images))):
        if values is not None and values.shape != shape:
            raise DataError(f"{where}: {kind} are {values.shape} for images {images.shape}", hint="one for each image")
    if labels is None and masks is None:
        raise DataError(f"{where} has neither labels nor masks", hint="use data with class labels or masks")
    if labels is not None and (wrong := np.flatnonzero((labels < 0) | (labels >= len(whole.classes)))).size:
        raise DataError(
            f"{where}: image {wrong[0]} has label {labels[wrong[0]]}, the classes are 0 to {len(whole.classes) - 1}",
            hint="correct the labels, or the list of class names",
        )
    if masks is not None:
        beyond = masks >= len(whole.mask_classes)
        if whole.void is not None:
            beyond &= masks != whole.void
        if beyond.any():
            first = int(np.flatnonzero(beyond.any(axis=(1, 2)))[0])
            raise DataError(
                f"{where}: mask {first} has label {int(masks[first][beyond[first]][0])}, "
                f"the classes are 0 to {len(whole.mask_classes) - 1}",
                hint="declare it as void, or correct the masks",
            )


def _extent(images: Images) -> str:
    return f"{images.shape[2]}x{images.shape[3]}"


def _spatial(images: Images) -> tuple[int, ...]:
    return (images.shape[0], *images.shape[2:])
