"""Rows in the Hugging Face hub's layout: an image column and a column of class numbers, and which ones they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afftool.data.decode import Encoded
from afftool.data.reading import regular
from afftool.data.spec import DataSpec
from afftool.data.splits import Labels
from afftool.errors import DataError
from afftool.registry import need

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")
_NUMBERS = "hub datasets mark hidden test labels with -1: use a split that has labels"


def pick(spec: DataSpec, key: str, likely: Sequence[str], columns: Sequence[str]) -> str:
    """The column for `key` (image or label): the one asked for, the only likely one, or the usual name.

    `likely` are the columns of the right kind. Raises `DataError`, listing the columns, where it cannot tell.
    """
    asked = spec.option(key)
    if asked:
        if asked not in columns:
            raise DataError(f"{spec.name} has no column {asked!r}", hint=f"it has {', '.join(columns)}")
        return asked
    usual = [name for name in (_IMAGE_NAMES if key == "image" else _LABEL_NAMES) if name in columns]
    found = [name for name in usual if name in likely] or list(likely) or usual
    if not found or (len(found) > 1 and found[0] not in usual):
        what = "several could be" if found else "none is"
        raise DataError(
            f"{spec}: which column is the {key} cannot be told, {what} it; the columns are {', '.join(columns)}",
            hint=f"name it, as :{key}=COLUMN",
        )
    return found[0]


def class_names(given: Sequence[str], labels: Labels, where: str) -> tuple[str, ...]:
    """The names that came with the data, or the numbers up to the highest label.

    Raises `DataError` for a label so high that some class below it must be without images, before they are counted.
    """
    if given:
        return tuple(given)
    highest = int(labels.max())
    if highest >= len(labels):
        raise DataError(
            f"{where}: label {highest} in row {int(labels.argmax())} makes {highest + 1:,} classes, "
            f"and {len(labels):,} rows cannot show each of them",
            hint="number the classes from 0 on without gaps",
        )
    return tuple(str(label) for label in range(highest + 1))


def check_numbers(kind: Any, where: str) -> None:
    """Raise `DataError` for a label column of any type of Arrow's but whole numbers, before it is read."""
    if not need("pyarrow", "ablate").types.is_integer(kind):
        raise DataError(f"{where}: the labels are {kind}, not class numbers", hint="name another, as :label=COLUMN")


def read_labels(column: Any, where: str) -> Labels:
    """A label column of Arrow's as int64. Raises `DataError` for rows without a class number."""
    if not len(column):
        raise DataError(f"{where} has no rows", hint="fetch the data again")
    check_numbers(column.type, where)
    compute = need("pyarrow.compute", "ablate")
    row = int(compute.index(compute.is_null(column), True).as_py())
    if row < 0:
        numbers = column.to_numpy()
        labels: Labels = numbers.astype(np.int64)  # beyond that a label is below 0
        row = int((labels < 0).argmax())
        if labels[row] >= 0:
            return labels
    raise DataError(f"{where}: row {row} has label {column[row].as_py()!r}, not a class number", hint=_NUMBERS)


def encoded(cell: Any, where: str, folder: Path, homes: Sequence[Path] = ()) -> Encoded:
    """The image in a cell: bytes, or a struct of `bytes` and `path`. Raises `DataError`.

    A path is followed below `folder` alone, links resolved, and an absolute one, which a file from elsewhere has no
    business to know, below one of `homes`.
    """
    if isinstance(cell, bytes):
        return Encoded(cell, where)
    if isinstance(cell, Mapping):
        if isinstance(cell.get("bytes"), bytes):
            return Encoded(cell["bytes"], where)
        if isinstance(cell.get("path"), str):
            return Encoded(_inside(cell["path"], where, folder, homes), f"{where}: {folder / cell['path']}")
    raise DataError(f"{where} holds no image: neither bytes nor a path", hint="fetch the data again")


def _inside(text: str, where: str, folder: Path, homes: Sequence[Path]) -> Path:
    path = Path(text)
    allowed = homes if path.is_absolute() else (folder,)
    if allowed and ".." not in path.parts and "\0" not in text:
        whole = regular(folder / path, f"{where}: {folder / path}").resolve()
        if any(whole.is_relative_to(home.resolve()) for home in allowed):
            return whole
    raise DataError(
        f"{where} names the image {text!r}, which leads out of {folder}",
        hint="no path out of the data's own folder is followed; put the images into it, or into the file itself",
    )
