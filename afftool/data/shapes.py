"""`shapes`: ten glyphs in textured clutter, from 3 pixels to the whole image; made to ask the paper's question.

A glyph is a pattern on a 3x3 grid, so it can be told apart when it is 3 pixels wide (only by looking closely) and when
it fills the image (only by looking widely). Its size is drawn from one of four bands, each about twice the last, and
accuracy can be told per band. Clutter, darker or a little brighter than its ground, is made of the same cells in the
same sizes, but no piece of it is a glyph. Classes are closed under a horizontal flip. How hard it is was set by plain
addition alone: ResNet with b=1 has about half of the test images right after the short recipe. Only integers
and the four operations that IEEE 754 fixes are used, so every machine draws the same bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from afftool.data.reading import check_memory
from afftool.data.spec import DataSpec
from afftool.data.splits import Split, Splits
from afftool.errors import DataError

_GLYPHS = {
    "ring": "### #.# ###",
    "diamond": ".#. #.# .#.",
    "plus": ".#. ### .#.",
    "cross": "#.# .#. #.#",
    "tee": "### .#. .#.",
    "stand": ".#. .#. ###",
    "cup": "#.# #.# ###",
    "arch": "### #.# #.#",
    "aitch": "#.# ### #.#",
    "ess": "##. .#. .##",
}
_CLUTTER = ("... .#. ...", "... .## ...", ".#. .#. ...", "... .#. ..#", "#.# ... ...", "..# ... #..")
_PIECES = 4
_CHUNK = 200
_SMALLEST = 3
_SIGNS = np.array([-1, 1], np.int16)

CLASSES = tuple(_GLYPHS)

_Ints = NDArray[np.int64]
_Levels = NDArray[np.int16]


def load(spec: DataSpec, *, train_images: int | None, seed: int) -> Splits:
    """Draw the images: any number, balanced over classes and bands, the first n of them the same for every number.

    Raises `DataError` for images too small to hold four size bands, or with no room in memory.
    """
    size = spec.number("size") or 32
    if size < 16:
        raise DataError(
            f"shapes: images of {size} pixels are too small for four size bands", hint="use size=16 or more"
        )
    edges = band_edges(size)
    train, test = train_images or spec.number("train") or 1, spec.number("test") or 1
    # Images and masks, twice while chunks are joined; a chunk takes some ten times its images while it is drawn.
    check_memory(
        f"shapes: {train + test:,} images of {size} x {size}",
        (2 * (train + test) + 10 * _CHUNK, 4, size, size),
        "take fewer with :train=, :test= or --train-images, or smaller ones with :size=",
    )
    return Splits(
        name=spec.text,
        train=draw(train, size=size, seed=seed, stream=0),
        test=draw(test, size=size, seed=seed, stream=1),
        classes=CLASSES,
        mask_classes=("background", *CLASSES),
        bands=tuple(f"{low}-{high}px" for low, high in edges),
    )


def band_edges(size: int) -> tuple[tuple[int, int], ...]:
    """The smallest and largest glyph side, in pixels, of each of the four bands: equal ratios from 3 to `size`."""
    starts = [max(_SMALLEST, round(_SMALLEST * (size / _SMALLEST) ** (band / 4))) for band in range(4)]
    return tuple(zip(starts, [*(start - 1 for start in starts[1:]), size], strict=True))


def draw(count: int, *, size: int, seed: int, stream: int) -> Split:
    """`count` images `(count, 3, size, size)` with labels, masks (0 is background) and bands.

    `stream` keeps splits apart. Image i depends on `seed`, `stream`, `size` and i alone.
    """
    chunks = [
        _draw_chunk(start, size, np.random.Generator(np.random.PCG64([seed, stream, size, start])))
        for start in range(0, count, _CHUNK)
    ]
    images, labels, masks, bands = (np.concatenate(arrays)[:count] for arrays in zip(*chunks, strict=True))
    return Split(images=images, labels=labels, masks=masks, bands=bands)


def _draw_chunk(
    start: int, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], _Ints, NDArray[np.uint8], NDArray[np.uint8]]:
    index = np.arange(start, start + _CHUNK)
    labels, bands = index % len(CLASSES), index // len(CLASSES) % 4
    edges = np.array(band_edges(size))

    canvas = rng.integers(80, 151, (_CHUNK, 3, 1, 1), dtype=np.int16)
    canvas = canvas + _texture(rng, size, cells=4, depth=16) + _texture(rng, size, cells=size // 2, depth=10)
    for _ in range(_PIECES):
        kind = rng.integers(0, len(_CLUTTER), _CHUNK)
        shape = _stamp(_PATTERNS[len(CLASSES) + kind], edges[rng.integers(0, 4, _CHUNK)], size, rng)
        canvas += shape[:, None] * (_contrast(rng, 20, 60) * rng.choice(_SIGNS, (_CHUNK, 1, 1, 1)))
    glyph = _stamp(_PATTERNS[labels], edges[bands], size, rng)
    canvas += glyph[:, None] * (_contrast(rng, 65, 110) + _texture(rng, size, cells=size // 4, depth=10))
    canvas += rng.integers(-6, 7, canvas.shape, dtype=np.int16)

    images = np.clip(canvas, 0, 255).astype(np.uint8)
    masks = np.where(glyph, (labels + 1)[:, None, None], 0).astype(np.uint8)
    return images, labels.astype(np.int64), masks, bands.astype(np.uint8)


def _stamp(patterns: _Levels, sides: _Ints, size: int, rng: np.random.Generator) -> _Levels:
    """Patterns `(N, 5, 5)` put at random places in boxes of these sides: 1 where they are set, `(N, size, size)`."""
    rows, cols = (_cells(sides, size, rng) for _ in range(2))
    mirrored = rng.integers(0, 2, (len(patterns), 1)) == 1
    cols = np.where(mirrored, 4 - cols, cols)
    image = np.arange(len(patterns))[:, None, None]
    return patterns[image, rows[:, :, None], cols[:, None, :]]


def _cells(sides: _Ints, size: int, rng: np.random.Generator) -> _Ints:
    """The cell of the 5-wide pattern at each pixel of an axis: 1 to 3 inside the box, 0 or 4 outside, `(N, size)`."""
    side = rng.integers(sides[:, 0], sides[:, 1] + 1)
    origin = rng.integers(0, size - side + 1)
    pixel = np.arange(size)[None, :] - origin[:, None]
    cell: _Ints = (2 * pixel + 1) * 3 // (2 * side[:, None]) + 1
    return cell.clip(0, 4)


def _texture(rng: np.random.Generator, size: int, *, cells: int, depth: int) -> _Levels:
    """Value noise `(N, 3, size, size)` within `depth`: random grid points, linear in between, grey and colour mixed."""
    points = (cells + 1, cells + 1)
    colour = rng.integers(-depth, depth + 1, (_CHUNK, 3, *points), dtype=np.int16)
    grey = rng.integers(-depth, depth + 1, (_CHUNK, 1, *points), dtype=np.int16)
    grid = (colour + grey).astype(np.float32) / 2
    low = np.arange(size) * cells // size
    share = ((np.arange(size) * cells % size) / size).astype(np.float32)
    rows = grid[:, :, low] * (1 - share)[:, None] + grid[:, :, low + 1] * share[:, None]
    return (rows[..., low] * (1 - share) + rows[..., low + 1] * share).astype(np.int16)


def _contrast(rng: np.random.Generator, low: int, high: int) -> _Levels:
    """A step up in brightness by `low` to `high` grey levels, with a tint of its own: `(N, 3, 1, 1)`."""
    step = rng.integers(low, high + 1, (_CHUNK, 1, 1, 1), dtype=np.int16)
    return step + rng.integers(-15, 16, (_CHUNK, 3, 1, 1), dtype=np.int16)


def _pattern(text: str) -> list[list[int]]:
    return [[0] * 5, *([0, *(int(c == "#") for c in row), 0] for row in text.split()), [0] * 5]


_PATTERNS: _Levels = np.array([_pattern(text) for text in (*_GLYPHS.values(), *_CLUTTER)], dtype=np.int16)
