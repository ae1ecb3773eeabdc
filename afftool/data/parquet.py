"""`parquet`: images and labels in Parquet files, as the Hugging Face hub writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from afftool.data.columns import class_names, encoded, pick, read_labels
from afftool.data.decode import Encoded, decode_images
from afftool.data.folder import existing
from afftool.data.parquet_files import split_files
from afftool.data.reading import refused, regular, unreadable
from afftool.data.spec import DataSpec
from afftool.data.splits import Labels, Split, Splits, choose
from afftool.errors import DataError
from afftool.registry import need

_CITATIONS = {
    "airplane automobile bird cat deer dog frog horse ship truck": "Krizhevsky 2009: Learning Multiple Layers of "
    "Features from Tiny Images (CIFAR-10)"
}


def load(spec: DataSpec, *, train_images: int | None, seed: int) -> Splits:
    """Read the labels first and then only the images of the subset. Raises `DataError`."""
    root = existing(spec)
    parts = split_files(root)
    train = _Table(spec, parts["train"])
    tables = {part: _Table(spec, files) if part != "train" else train for part, files in parts.items()}
    classes = class_names(train.names, train.labels)

    def read(part: str) -> Split:
        table = tables[part]
        keep = choose(table.labels, train_images if part == "train" else None, seed, spec.text)
        table.check(len(classes))
        return Split(images=decode_images(table.images(keep), spec.size()), labels=table.labels[keep])

    return Splits(
        name=spec.text,
        train=read("train"),
        test=read("test"),
        val=read("val") if "val" in parts else None,
        classes=classes,
        citation=_CITATIONS.get(" ".join(classes), ""),
    )


class _Table:
    """The files of one split, opened; labels in memory, images read when asked for."""

    def __init__(self, spec: DataSpec, files: list[Path]) -> None:
        arrow, parquet = need("pyarrow", "ablate"), need("pyarrow.parquet", "ablate")
        self._files: list[tuple[Path, Any]] = []
        labels: list[Labels] = []
        for path in files:
            try:
                file = parquet.ParquetFile(regular(path))
                schema = file.schema_arrow
                self.image = pick(spec, "image", _likely_images(schema, arrow), schema.names)
                label = pick(spec, "label", _likely_labels(schema, arrow), schema.names)
                labels.append(read_labels(file.read([label]).column(label).to_pylist(), str(path)))
            except DataError:
                raise
            except Exception as error:  # a broken footer makes pyarrow raise more than its own errors
                raise _broken(path, error) from error
            self.names = _names(schema, label)
            self._files.append((path, file))
        self.labels: Labels = np.concatenate(labels)

    def check(self, classes: int) -> None:
        """Raise `DataError` for a label beyond the classes, naming file and row."""
        if (wrong := np.flatnonzero(self.labels >= classes)).size:
            path, row = self._locate(int(wrong[0]))
            raise DataError(
                f"{path}: row {row} has label {self.labels[wrong[0]]}, the classes are 0 to {classes - 1}",
                hint="correct the label, or the class names in the schema metadata",
            )

    def images(self, keep: Labels) -> list[Encoded]:
        """The encoded images of the rows `keep` (ascending), read a row group at a time."""
        found: list[Encoded] = []
        offset = 0
        for path, file in self._files:
            start = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                first, last = np.searchsorted(keep, [offset, offset + rows])
                if first < last:
                    inside = keep[first:last] - offset
                    try:
                        cells = file.read_row_group(group, [self.image]).column(self.image).take(inside).to_pylist()
                    except Exception as error:
                        raise _broken(path, error) from error
                    pairs = zip(inside, cells, strict=True)
                    found += [encoded(cell, f"{path}: row {start + row}", path.parent) for row, cell in pairs]
                offset += rows
                start += rows
        return found

    def _locate(self, index: int) -> tuple[Path, int]:
        for path, file in self._files:
            if index < file.metadata.num_rows:
                return path, index
            index -= file.metadata.num_rows
        raise IndexError(index)


def _likely_images(schema: Any, arrow: Any) -> list[str]:
    def fits(kind: Any) -> bool:
        if arrow.types.is_struct(kind):
            return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
        return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))

    return [field.name for field in schema if fits(field.type)]


def _likely_labels(schema: Any, arrow: Any) -> list[str]:
    named = [name for name in schema.names if _names(schema, name)]
    return named or [field.name for field in schema if arrow.types.is_integer(field.type)]


def _names(schema: Any, column: str) -> list[str]:
    """The class names that the hub keeps in the schema's metadata; none where there are none."""
    raw = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        names = json.loads(raw)["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _broken(path: Path, error: Exception) -> DataError:
    if refused(error):
        return unreadable(path, error)
    return DataError(f"{path} is no whole Parquet file: {error}", hint="fetch the file again; it may have been cut off")
