"""`digits`: 1,797 handwritten digits of 8x8 pixels, real and small, that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from afftool.data.reading import check_memory
from afftool.data.spec import DataSpec
from afftool.data.splits import Split, Splits, choose
from afftool.errors import SpecError
from afftool.registry import need

_TEST_IMAGES = 360
_CITATION = "Alpaydin, Kaynak 1998: Optical Recognition of Handwritten Digits (UCI)"


def load(spec: DataSpec, *, train_images: int | None, seed: int) -> Splits:
    """Grey levels 0 to 16 as uint8 in three equal channels; a fixed, stratified fifth is the test split."""
    digits = need("sklearn.datasets", "ablate").load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    if (size := spec.size()) is not None:
        if size[0] % 8 or size[1] % 8:
            raise SpecError(f"digits: size {size[0]}x{size[1]} is no multiple of 8", hint="use 8, 16, 24 or 32")
        check_memory(f"digits of {size[0]}x{size[1]}", (2, len(grey), 3, *size), "use a smaller :size=")
        grey = grey.repeat(size[0] // 8, axis=1).repeat(size[1] // 8, axis=2)
    images = np.repeat(grey[:, None], 3, axis=1)
    labels = digits.target.astype(np.int64)
    held_out = np.zeros(len(labels), bool)
    held_out[choose(labels, _TEST_IMAGES, 0, "digits")] = True
    train = np.flatnonzero(~held_out)
    train = train[choose(labels[train], train_images, seed, "digits")]
    return Splits(
        name=spec.text,
        train=Split(images=images[train], labels=labels[train]),
        test=Split(images=images[held_out], labels=labels[held_out]),
        classes=tuple(str(digit) for digit in range(10)),
        citation=_CITATION,
    )
