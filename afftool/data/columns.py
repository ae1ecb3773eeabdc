"""Rows in the Hugging Face hub's layout: an image column and a column of class numbers, and which ones they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afftool.data.decode import Encoded
from afftool.data.spec import DataSpec
from afftool.data.splits import Labels
from afftool.errors import DataError

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label")


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


def class_names(given: Sequence[str], labels: Labels) -> tuple[str, ...]:
    """The names that came with the data, or the numbers up to the highest label."""
    return tuple(given) if given else tuple(str(label) for label in range(int(labels.max()) + 1))


def read_labels(values: Sequence[Any], where: str) -> Labels:
    """A label column as int64. Raises `DataError` for rows without a class number."""
    if not len(values):
        raise DataError(f"{where} has no rows", hint="fetch the data again")
    for row, value in enumerate(values):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise DataError(
                f"{where}: row {row} has label {value!r}, not a class number",
                hint="hub datasets mark hidden test labels with -1: use a split that has labels",
            )
    return np.array(values, np.int64)


def encoded(cell: Any, where: str, folder: Path) -> Encoded:
    """The image in a cell: bytes, or a struct of `bytes` and `path` (relative to `folder`). Raises `DataError`."""
    if isinstance(cell, bytes):
        return Encoded(cell, where)
    if isinstance(cell, Mapping):
        if isinstance(cell.get("bytes"), bytes):
            return Encoded(cell["bytes"], where)
        if isinstance(cell.get("path"), str):
            path = folder / cell["path"]
            return Encoded(path, f"{where}: {path}")
    raise DataError(f"{where} holds no image: neither bytes nor a path", hint="fetch the data again")
