"""Encoded images to one uint8 array, with Pillow and threads.

What the pixels of an ordinary picture say is taken as it is: transparency and colour profiles are ignored. Whatever
would have to be guessed is refused: 32-bit levels, of which none is white by itself, and all but one of many frames.
"""

from __future__ import annotations

import io
import itertools
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from afftool.data.reading import check_memory, refused, regular, unreadable
from afftool.data.splits import Images
from afftool.errors import DataError
from afftool.registry import need

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
"""The formats that these suffixes promise. Nothing else is tried, by whatever name: Pillow hands an EPS, which is a
program, to Ghostscript."""
_MOST_PIXELS = 89_478_485
"""An image's, as many as Pillow takes without a warning; 9,459 x 9,459."""
_LARGE_PIXELS = 2**24
"""Images above this are decoded one at a time, that the threads do not take all memory at once."""
_BATCH = 64
_WINDOW_IMAGES = 1024
_WINDOW_BYTES = 256 * 2**20
_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""EXIF's orientation -> what Pillow does to show it upright."""
_DEEP_MODES = ("I;16", "I;16B", "I;16L")
_SMALLER = "take fewer with --train-images, or smaller ones with :size="
_Numbered = tuple[int, "Encoded"]


@dataclass(frozen=True)
class Encoded:
    """One encoded image: its bytes or the file that holds them, and what to call it in an error."""

    source: bytes | Path
    name: str


def decode_images(
    images: Iterable[Encoded],
    count: int,
    size: tuple[int, int] | None,
    where: str,
    *,
    to_come: int = 0,
    with_masks: bool = False,
) -> Images:
    """Colour images as `(count, 3, H, W)` uint8, turned upright by their EXIF orientation, and then resized
    (antialiased) to `size` (height, width) if given. Of 16 bits a channel the upper eight are taken.

    `where` is whose images they are; there must be room for so many `to_come` as well. Images that come `with_masks`
    must need no turn: whether the mask was drawn before or after it, nobody can tell. Raises `DataError` for images
    that cannot be read or have no room in memory, and that differ in size where none is given.
    """

    def read(image: Image.Image, pillow: ModuleType) -> NDArray[np.uint8]:
        if with_masks:
            _check_upright(image)
        image.load()
        turn = _turn(image)  # after loading: of a TIFF, that has turned it already
        image = _eight_bits(image, pillow).convert("RGB")
        if turn:
            image = image.transpose(pillow.Transpose[turn])
        if size and image.size != size[::-1]:
            image = image.resize(size[::-1], pillow.Resampling.BILINEAR)
        return np.asarray(image, dtype=np.uint8).transpose(2, 0, 1)

    return _decode(images, count, (3,), size, where, to_come, read)


def decode_masks(
    images: Sequence[Encoded], size: tuple[int, int] | None, where: str, *, to_come: int = 0
) -> NDArray[np.uint8]:
    """Label images as `(N, H, W)` uint8: grey values or palette indices; resized to the nearest label.

    Raises `DataError` as `decode_images` does, for colour images, for labels above 255, and where the labels are not
    what the picture would show.
    """

    def read(image: Image.Image, pillow: ModuleType) -> NDArray[np.uint8]:
        if image.mode not in ("1", "L", "P", "I", *_DEEP_MODES):
            raise ValueError(f"it is a {image.mode} picture; a mask holds one class number a pixel, in grey or palette")
        spread = _spread(image)  # before anything is decoded: afterwards the file's own form is forgotten
        _check_upright(image)
        if size and image.size != size[::-1]:
            image = image.resize(size[::-1], pillow.Resampling.NEAREST)
        labels = np.asarray(image)
        if labels.min() < 0 or labels.max() > 255:
            raise ValueError(f"it has labels up to {labels.max()}; 0 to 255 fit")
        return labels.astype(np.uint8) // np.uint8(spread)

    return _decode(images, len(images), (), size, where, to_come, read)


def _decode(
    images: Iterable[Encoded],
    count: int,
    channels: tuple[int, ...],
    size: tuple[int, int] | None,
    where: str,
    to_come: int,
    read: Callable[[Image.Image, ModuleType], NDArray[np.uint8]],
) -> NDArray[np.uint8]:
    pillow: Any = need("PIL.Image", "ablate")
    alone = threading.Lock()

    def one(encoded: Encoded) -> NDArray[np.uint8]:
        source = encoded.source
        try:
            opened = io.BytesIO(source) if isinstance(source, bytes) else regular(source, encoded.name)
            with pillow.open(opened, formats=_FORMATS) as image:
                _check(image)
                with alone if image.width * image.height > _LARGE_PIXELS else nullcontext():
                    return read(image, pillow)
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything on broken files
            if refused(error):
                raise unreadable(encoded.name, error) from error
            raise DataError(
                f"{encoded.name} cannot be used: {_reason(error, pillow)}", hint="replace or remove this file"
            ) from error

    def check_room(extent: tuple[int, int]) -> None:
        number = count + to_come
        what = f"{where}: {number:,} {'images' if channels else 'masks'} of {extent[0]}x{extent[1]}"
        check_memory(what, (number, *channels, *extent), _SMALLER)

    if size:
        check_room(size)
    numbered = enumerate(images)
    _, head = next(numbered)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        warnings.filterwarnings("ignore", module="PIL")  # of large images and odd tags, which are judged here
        first = one(head)
        if not size:
            check_room((first.shape[-2], first.shape[-1]))
        decoded = np.empty((count, *first.shape), np.uint8)
        decoded[0] = first

        def batch(some: Sequence[_Numbered]) -> None:
            for i, encoded in some:
                array = one(encoded)
                if array.shape != first.shape:
                    raise DataError(
                        f"images differ in size: {head.name} is {_extent(first)}, {encoded.name} {_extent(array)}",
                        hint="resize them all, for example with :size=64 (height and width) or :size=180x240",
                    )
                decoded[i] = array

        for window in _windows(numbered):
            for _ in threads.map(batch, [window[i : i + _BATCH] for i in range(0, len(window), _BATCH)]):
                pass
    return decoded


def _windows(images: Iterator[_Numbered]) -> Iterator[list[_Numbered]]:
    """Runs of images that together are held in memory while still encoded: so many, or of so many bytes."""
    for numbered in images:
        window, held = [numbered], _held(numbered)
        for another in itertools.islice(images, _WINDOW_IMAGES - 1):
            window.append(another)
            held += _held(another)
            if held > _WINDOW_BYTES:
                break
        yield window


def _held(numbered: _Numbered) -> int:
    source = numbered[1].source
    return len(source) if isinstance(source, bytes) else 0


def _check(image: Image.Image) -> None:
    """Raise `ValueError` for a picture that is too large or is several, of which only the head has been read."""
    if image.width * image.height > _MOST_PIXELS:
        raise ValueError(f"it is {image.width:,} x {image.height:,} pixels large; {_MOST_PIXELS:,} in all are allowed")
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's, with its preview after it
        raise ValueError(f"it holds several pictures ({image.format}, animated or of many pages); one is needed")


def _reason(error: Exception, pillow: Any) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, pillow.DecompressionBombError):
        return f"it has more than twice the {_MOST_PIXELS:,} pixels that are allowed"
    if isinstance(error, pillow.UnidentifiedImageError):
        return f"it is no whole picture in {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}"
    return str(error)


def _eight_bits(image: Image.Image, pillow: Any) -> Image.Image:
    """The image with eight bits a channel, as Pillow itself reads colour of 16: the upper ones. Raises `ValueError`."""
    deep = image.mode in _DEEP_MODES or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if not deep:
        if image.mode in ("I", "F"):
            raise ValueError("its levels have 32 bits, and which of them is white is not said; save it with 8 or 16")
        return image
    levels = np.asarray(image)
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0:  # white is zero; Pillow minds it up to 8
        levels = 65535 - levels
    eight: Image.Image = pillow.fromarray((levels >> 8).astype(np.uint8))
    return eight


def _turn(image: Image.Image) -> str | None:
    """What would show the image upright; None where nothing, or nothing legible, is said."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # tags of nonsense; the picture is whole without them
        return None


def _check_upright(image: Image.Image) -> None:
    if _turn(image):
        raise ValueError(
            "its EXIF orientation says that it is shown turned, and whether image and mask are both meant so is not "
            "said; turn the pixels of both as they belong, and remove the tag"
        )


def _spread(image: Image.Image) -> int:
    """What Pillow multiplies labels by to make grey of few bits fill the range. Raises `ValueError` where it rounds."""
    for codec, _, _, args in image.tile:  # type: ignore[attr-defined]
        raw, *rest = args if isinstance(args, tuple) else (args,)
        if raw in ("L;2", "L;4"):
            return 85 if raw == "L;2" else 17
        if codec.startswith("ppm") and rest and rest[0] not in (255, 65535):
            raise ValueError(f"its labels are levels from 0 to {rest[0]}, not to 255; write the mask as PNG")
        if str(raw).startswith(("1;", "L;")) and "I" in str(raw):
            raise ValueError("its labels are written in negative (white is zero); write the mask as PNG")
    return 1


def _extent(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[-2]}x{array.shape[-1]}"
