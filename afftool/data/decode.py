"""Encoded images to one uint8 array, with Pillow and threads."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from afftool.data.reading import refused, regular, unreadable
from afftool.data.splits import Images
from afftool.errors import DataError
from afftool.registry import need

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
_BATCH = 64


@dataclass(frozen=True)
class Encoded:
    """One encoded image: its bytes or the file that holds them, and what to call it in an error."""

    source: bytes | Path
    name: str


def decode_images(images: Sequence[Encoded], size: tuple[int, int] | None) -> Images:
    """Colour images as `(N, 3, H, W)` uint8, resized (antialiased) to `size` (height, width) if given.

    Raises `DataError` for images that cannot be read, or differ in size where none is given.
    """

    def read(image: Image.Image, pillow: ModuleType) -> NDArray[np.uint8]:
        image = image.convert("RGB")
        if size and image.size != size[::-1]:
            image = image.resize(size[::-1], pillow.Resampling.BILINEAR)
        return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)

    return _decode(images, read)


def decode_masks(images: Sequence[Encoded], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Label images as `(N, H, W)` uint8: grey values or palette indices; resized to the nearest label.

    Raises `DataError` as `decode_images` does, and for colour images and labels above 255.
    """

    def read(image: Image.Image, pillow: ModuleType) -> NDArray[np.uint8]:
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
            raise ValueError(f"it is a {image.mode} picture; a mask holds one class number a pixel, in grey or palette")
        if size and image.size != size[::-1]:
            image = image.resize(size[::-1], pillow.Resampling.NEAREST)
        labels = np.asarray(image)
        if labels.min() < 0 or labels.max() > 255:
            raise ValueError(f"it has labels up to {labels.max()}; 0 to 255 fit")
        return labels.astype(np.uint8)

    return _decode(images, read)


def _decode(
    images: Sequence[Encoded], read: Callable[[Image.Image, ModuleType], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    pillow: Any = need("PIL.Image", "ablate")

    def one(encoded: Encoded) -> NDArray[np.uint8]:
        source = encoded.source
        try:
            opened = io.BytesIO(source) if isinstance(source, bytes) else regular(source, encoded.name)
            with pillow.open(opened) as image:
                return read(image, pillow)
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything on broken files
            if refused(error):
                raise unreadable(encoded.name, error) from error
            raise DataError(f"{encoded.name} cannot be used: {error}", hint="replace or remove this file") from error

    first = one(images[0])
    decoded = np.empty((len(images), *first.shape), np.uint8)

    def batch(start: int) -> None:
        for i in range(start, min(start + _BATCH, len(images))):
            array = one(images[i]) if i else first
            if array.shape != first.shape:
                raise DataError(
                    f"images differ in size: {images[0].name} is {_extent(first)}, {images[i].name} {_extent(array)}",
                    hint="resize them all, for example with :size=64 (height and width) or :size=180x240",
                )
            decoded[i] = array

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        for _ in threads.map(batch, range(0, len(images), _BATCH)):
            pass
    return decoded


def _extent(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[-2]}x{array.shape[-1]}"
