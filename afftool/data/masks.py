"""`masks`: segmentation folders, SPLIT/images/* with a SPLIT/masks/*.png of the same stem for each image."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from afftool.data.decode import Encoded, decode_images, decode_masks
from afftool.data.folder import existing, splits_in
from afftool.data.mask_pairs import mask_pairs
from afftool.data.reading import explained, regular
from afftool.data.spec import DataSpec
from afftool.data.splits import IGNORE, Split, Splits, choose_any
from afftool.errors import DataError
from afftool.received import Malformed, read_text

_CAMVID = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+")
_CAMVID_CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree"),
    *("sign", "fence", "car", "pedestrian", "bicyclist"),
)
_CAMVID_CITATION = "Brostow, Fauqueur, Cipolla 2009: Semantic object classes in video (CamVid)"
_NAMES = "classes.txt"
_LONGEST_NAMES = 2**20


def load(spec: DataSpec, *, train_images: int | None, seed: int) -> Splits:
    """Read image and mask pairs; labels beyond the classes must be the void label.

    The number of classes is the option `classes`, or the lines of classes.txt in the folder, or CamVid's 11 where the
    file names are CamVid's, or else found in the training masks, each of which labels must then occur. The void label
    is the option `void`, or CamVid's, or 255 where masks hold it. Raises `DataError`.
    """
    root = existing(spec)
    parts = splits_in(root)
    pairs = {part: mask_pairs(root / folder) for part, folder in parts.items()}
    camvid = all(_CAMVID.fullmatch(image.stem) for some in pairs.values() for image, _ in some)
    given = spec.number("void")
    void = given if given is not None else len(_CAMVID_CLASSES) if camvid else None
    names = _class_names(spec, root, camvid) or _found_classes([mask for _, mask in pairs["train"]], void)
    _check_void(spec, void, len(names))

    chosen = {
        part: [some[i] for i in choose_any(len(some), train_images if part == "train" else None, seed, spec.text)]
        for part, some in pairs.items()
    }
    masks: dict[str, NDArray[np.uint8]] = {}
    to_come = sum(map(len, chosen.values()))
    for part, some in chosen.items():
        to_come -= len(some)
        masks[part] = decode_masks([Encoded(m, str(m)) for _, m in some], spec.size(), spec.text, to_come=to_come)
    assumed = void is None and any((values == IGNORE).any() for values in masks.values())
    if assumed:
        _check_assumed(spec, masks["train"])
        void = IGNORE

    to_come = sum(map(len, chosen.values()))

    def read(part: str) -> Split:
        nonlocal to_come
        some = chosen[part]
        to_come -= len(some)
        _check_labels(masks[part], [mask for _, mask in some], len(names), void)
        encoded = [Encoded(image, str(image)) for image, _ in some]
        images = decode_images(encoded, len(some), spec.size(), spec.text, to_come=to_come, with_masks=True)
        if images.shape[2:] != masks[part].shape[1:]:
            raise DataError(
                f"{some[0][0]} and its mask differ in size: {images.shape[2:]} and {masks[part].shape[1:]}",
                hint="resize both, for example with :size=180x240",
            )
        return Split(images=images, masks=masks[part])

    return Splits(
        name=spec.text,
        train=read("train"),
        test=read("test"),
        val=read("val") if "val" in parts else None,
        mask_classes=names,
        void=void,
        citation=_CAMVID_CITATION if camvid else "",
        note=f"{IGNORE} in the masks is taken as void, as in VOC and Cityscapes; no void label was given."
        if assumed
        else "",
    )


def _class_names(spec: DataSpec, root: Path, camvid: bool) -> tuple[str, ...]:
    """The declared classes by name, or nothing where they have to be found."""
    names: tuple[str, ...] = ()
    if os.path.lexists(root / _NAMES):
        try:
            with explained(root / _NAMES):
                text = read_text(regular(root / _NAMES), at_most=_LONGEST_NAMES)
        except Malformed as error:
            raise DataError(f"{root / _NAMES} {error}", hint="save it as UTF-8 text, a name a line") from error
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    elif camvid:
        names = _CAMVID_CLASSES
    count = spec.number("classes")
    if max(count or 0, len(names)) > IGNORE:
        given = f"{spec}: {count} classes" if count else f"{root / _NAMES}: {len(names)} classes"
        raise DataError(
            f"{given} are more than a mask can hold, where 0 to {IGNORE - 1} are classes and {IGNORE} is void",
            hint=f"merge classes in the masks until there are {IGNORE} or fewer",
        )
    if count is None or count == len(names):
        return names
    return tuple(str(label) for label in range(count))


def _found_classes(files: list[Path], void: int | None) -> tuple[str, ...]:
    first: dict[int, Path] = {}
    for file in files:  # one at a time: sizes may differ, and only the labels are kept
        for label in np.unique(decode_masks([Encoded(file, str(file))], None, str(file))):
            first.setdefault(int(label), file)
    void = IGNORE if void is None else void
    first.pop(void, None)
    if not first:
        raise DataError(f"every pixel of every training mask is void ({void})", hint="declare another void label")
    highest = max(first)
    for label in range(highest):
        if label not in first:
            raise DataError(
                f"{first[highest]} has label {highest}, but no training mask has label {label}: "
                f"is {highest} a void label, or class {label} without images?",
                hint=f"declare them, for example :classes={label}:void={highest}",
            )
    return tuple(str(label) for label in range(highest + 1))


def _check_void(spec: DataSpec, void: int | None, classes: int) -> None:
    if void is not None and void < classes:
        raise DataError(
            f"{spec}: void label {void} is one of the classes 0 to {classes - 1}", hint="declare another void label"
        )
    if void is not None and void > IGNORE:
        raise DataError(f"{spec}: no mask can hold the void label {void}", hint=f"masks hold 0 to {IGNORE}")


def _check_assumed(spec: DataSpec, masks: NDArray[np.uint8]) -> None:
    """Refuse to take 255 as void where it may well be the foreground of masks in black and white."""
    labels = [int(label) for label in np.unique(masks) if label != IGNORE]
    if len(labels) < 2:
        raise DataError(
            f"{spec}: beside {IGNORE}, by convention void, the training masks hold {labels or 'nothing'} alone: "
            f"is {IGNORE} a class here?",
            hint=f"write the class as 1 into the masks, or declare :void={IGNORE}",
        )


def _check_labels(masks: NDArray[np.uint8], files: list[Path], classes: int, void: int | None) -> None:
    beyond = masks >= classes
    if void is not None:
        beyond &= masks != void
    if beyond.any():
        index = int(np.flatnonzero(beyond.any(axis=(1, 2)))[0])
        label = int(masks[index][beyond[index]][0])
        raise DataError(
            f"{files[index]} has label {label}; the classes are 0 to {classes - 1}, "
            f"{'none' if void is None else void} is void",
            hint=f"declare it, as :void={label}{f' or :classes={label + 1}' if label < IGNORE else ''}, "
            "or correct the mask",
        )
