"""`parquet`: images and labels in Parquet files, as the Hugging Face hub writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from afftool.data.columns import check_numbers, class_names, encoded, pick, read_labels
from afftool.data.decode import Encoded, decode_images
from afftool.data.folder import existing
from afftool.data.parquet_files import split_files
from afftool.data.reading import check_memory, refused, regular, unreadable
from afftool.data.spec import DataSpec
from afftool.data.splits import Labels, Split, Splits, choose
from afftool.errors import DataError
from afftool.received import Malformed, json_of
from afftool.registry import need

_CITATIONS = {
    "airplane automobile bird cat deer dog frog horse ship truck": "Krizhevsky 2009: Learning Multiple Layers of "
    "Features from Tiny Images (CIFAR-10)"
}
_LABEL_BYTES = 32
"""What a row's label takes at most, with its copies on the way; a few bytes of a file can stand for millions."""
_ROWS = 64
"""Rows that are taken from a file at a time."""


def load(spec: DataSpec, *, train_images: int | None, seed: int) -> Splits:
    """Read the labels first and then only the images of the subset. Raises `DataError`."""
    root = existing(spec)
    parts = split_files(root)
    train = _Table(spec, parts["train"])
    tables = {part: _Table(spec, files) if part != "train" else train for part, files in parts.items()}
    classes = class_names(train.names, train.labels, f"{spec}, train split")

    to_come = sum(len(table.labels) for part, table in tables.items() if part != "train")

    def read(part: str) -> Split:
        nonlocal to_come
        table = tables[part]
        keep = choose(table.labels, train_images if part == "train" else None, seed, spec.text)
        table.check(len(classes))
        to_come -= 0 if part == "train" else len(keep)
        images = decode_images(table.images(keep), len(keep), spec.size(), spec.text, to_come=to_come)
        return Split(images=images, labels=table.labels[keep])

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
                source = arrow.OSFile(str(regular(path)))  # one for both, should another file take the name's place
                file = parquet.ParquetFile(source)
                schema, rows = file.schema_arrow, file.metadata.num_rows
                self.image = pick(spec, "image", _likely_images(schema, arrow), schema.names)
                label = pick(spec, "label", _likely_labels(schema, arrow), schema.names)
                check_numbers(schema.field(label).type, str(path))
                check_memory(f"{path}: the labels of {rows:,} rows", (rows, _LABEL_BYTES), "use a file of fewer rows")
                labels.append(read_labels(file.read([label]).column(label), str(path)))
                # A dictionary stays one: a value that thousands of rows share is in memory once.
                shared = _texts(file.schema, self.image)
                self._files.append((path, parquet.ParquetFile(source, read_dictionary=shared)))
            except DataError:
                raise
            except Exception as error:  # a broken footer makes pyarrow raise more than its own errors
                raise _broken(path, error) from error
            self.names = _names(schema, label)
        self.labels: Labels = np.concatenate(labels)

    def check(self, classes: int) -> None:
        """Raise `DataError` for a label beyond the classes, naming file and row."""
        if (wrong := np.flatnonzero(self.labels >= classes)).size:
            path, row = self._locate(int(wrong[0]))
            raise DataError(
                f"{path}: row {row} has label {self.labels[wrong[0]]}, the classes are 0 to {classes - 1}",
                hint="correct the label, or the class names in the schema metadata",
            )

    def images(self, keep: Labels) -> Iterator[Encoded]:
        """The encoded images of the rows `keep` (ascending), some at a time. Raises `DataError` while they are read."""
        offset = 0
        for path, file in self._files:
            start = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                first, last = np.searchsorted(keep, [offset, offset + rows])
                if first < last:
                    for row, cell in self._cells(path, file, group, keep[first:last] - offset):
                        yield encoded(cell, f"{path}: row {start + row}", path.parent)
                offset += rows
                start += rows

    def _cells(self, path: Path, file: Any, group: int, inside: Labels) -> Iterator[tuple[int, Any]]:
        """The image cells of these rows (ascending) of a row group, each with its row."""
        seen = found = 0
        try:
            for batch in file.iter_batches(_ROWS, row_groups=[group], columns=[self.image]):
                column = batch.column(0)
                while found < len(inside) and inside[found] < seen + len(column):
                    row = int(inside[found])
                    yield row, column[row - seen].as_py()
                    found += 1
                if found == len(inside):
                    return
                seen += len(column)
        except Exception as error:
            raise _broken(path, error) from error
        raise _broken(path, f"a row group of {file.metadata.row_group(group).num_rows:,} rows has {seen:,}")

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
        names = json_of(raw.decode())["info"]["features"][column]["names"]
    except (Malformed, UnicodeDecodeError, KeyError, TypeError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _texts(schema: Any, column: str) -> list[str]:
    """The parts of a column that hold bytes or text, by the names that the file has for them."""
    parts = [schema.column(i) for i in range(len(schema.names))]
    return [p.path for p in parts if p.path.partition(".")[0] == column and p.physical_type == "BYTE_ARRAY"]


def _broken(path: Path, error: Exception | str) -> DataError:
    if isinstance(error, Exception) and refused(error):
        return unreadable(path, error)
    return DataError(f"{path} is no whole Parquet file: {error}", hint="fetch the file again; it may have been cut off")
