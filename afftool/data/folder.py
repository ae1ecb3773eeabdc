"""`folder`: images sorted into class folders, train/CLASS/* and test/CLASS/* (or val/)."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np

from afftool.data.decode import SUFFIXES, Encoded, decode_images
from afftool.data.reading import entries_below, is_folder, visible
from afftool.data.spec import DataSpec
from afftool.data.splits import Labels, Split, Splits, choose
from afftool.errors import DataError

_PARTS = ("train", "test", "val", "valid", "validation")


def load(spec: DataSpec, *, train_images: int | None, seed: int) -> Splits:
    """Read the splits under the spec's path; classes are the folders of train/, by name, in order.

    With both test/ and val/, test/ is the test split; with val/ alone, val/ is. Raises `DataError`.
    """
    root = existing(spec)
    parts = splits_in(root)
    classes = tuple(sorted(entry.name for entry in visible(root / "train") if is_folder(entry)))
    if not classes:
        raise DataError(f"{root / 'train'} has no class folders", hint="put the images of each class into a folder")
    if set(classes) == {"images", "masks"}:
        raise DataError(f"{root} holds images and masks, not class folders", hint=f"use --data masks:{root}")

    chosen: dict[str, tuple[list[Encoded], Labels]] = {}
    for part, name in parts.items():
        files, labels = _images_of(root / name, classes)
        keep = choose(labels, train_images if part == "train" else None, seed, spec.text)
        chosen[part] = [Encoded(files[i], str(files[i])) for i in keep], labels[keep]
    to_come = sum(len(images) for images, _ in chosen.values())

    def read(part: str) -> Split:
        nonlocal to_come
        images, labels = chosen[part]
        to_come -= len(images)
        decoded = decode_images(images, len(images), spec.size(), spec.text, to_come=to_come)
        return Split(images=decoded, labels=labels)

    return Splits(
        name=spec.text,
        train=read("train"),
        test=read("test"),
        val=read("val") if "val" in parts else None,
        classes=classes,
        note=_near_twins(classes),
    )


def existing(spec: DataSpec) -> Path:
    """The spec's path. Raises `DataError` if no such folder exists."""
    root = Path(spec.path or "")
    if not root.exists():
        raise DataError(f"{root} does not exist (for --data {spec})", hint="check the path; it is relative to here")
    if not root.is_dir():
        raise DataError(f"{root} is a file, {spec.name} needs a folder", hint="give the folder that holds it")
    return root


def splits_in(root: Path) -> dict[str, str]:
    """Which folder plays which part: `train`, `test`, and `val` where there is a third. Raises `DataError`."""
    found = {entry.name for entry in visible(root) if entry.name in _PARTS and is_folder(entry)}
    val = next((name for name in _PARTS[2:] if name in found), None)
    test = "test" if "test" in found else val
    missing = "train/" if "train" not in found else "test/ or val/" if test is None else None
    if missing:
        listed = ", ".join(sorted(entry.name for entry in visible(root))[:8]) or "nothing"
        raise DataError(
            f"{root} has no {missing} folder; it holds {listed}", hint="give the folder with train/ and test/ in it"
        )
    assert test is not None
    return {"train": "train", "test": test, **({"val": val} if val and val != test else {})}


def image_files(folder: Path) -> list[Path]:
    """Whatever under a folder is named as an image, in order, hidden ones left out. Raises `DataError`."""
    return entries_below(folder, lambda path: path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _near_twins(classes: tuple[str, ...]) -> str:
    """What to say where two classes would be one folder on another system (macOS and Windows mind no case)."""
    first: dict[str, str] = {}
    for name in classes:
        twin = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if twin != name:
            return f"the class folders {twin!r} and {name!r}, which elsewhere are one, are taken as two classes."
    return ""


def _images_of(folder: Path, classes: tuple[str, ...]) -> tuple[list[Path], Labels]:
    folders = {entry.name for entry in visible(folder) if is_folder(entry)}
    if unknown := sorted(folders - set(classes)):
        raise DataError(
            f"{folder / unknown[0]} is a class that train/ does not have",
            hint="correct the folder's name, or add its images to train/",
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = image_files(folder / name) if name in folders else []
        if not images:
            raise DataError(
                f"class {name!r} has no images: {folder / name} {'is empty' if name in folders else 'is missing'}",
                hint=f"add images ({', '.join(sorted(SUFFIXES))}), or remove the class from every split",
            )
        files += images
        labels += [label] * len(images)
    return files, np.array(labels, dtype=np.int64)
