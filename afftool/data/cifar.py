"""CIFAR-10 and CIFAR-100 in the forms people have: python or binary version, archive or extracted folder."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from afftool.data import safe_pickle
from afftool.data.reading import explained, is_folder, refused, regular, unreadable
from afftool.data.spec import DataSpec
from afftool.data.splits import Images, Labels, Split, Splits, choose
from afftool.errors import DataError
from afftool.received import Malformed, read_bytes

_CITATION = "Krizhevsky 2009: Learning Multiple Layers of Features from Tiny Images"
_PIXELS = 3 * 32 * 32
_MOST_BYTES = 512 * 2**20
"""Of a file, and of all that an archive unpacks to: 187 MB as distributed."""
_MOST_MEMBERS = 10_000
_READS_PAST_END = 3
_AGAIN = "fetch the archive again and compare its size or checksum with the publisher's"


@dataclass(frozen=True)
class _Layout:
    """Where one of the two datasets keeps what; names are those of the files inside the archive."""

    train: tuple[str, ...]
    test: str
    meta: str
    folders: tuple[str, str]
    label_bytes: tuple[str, ...]
    """The label bytes that open each record of the binary version, in order."""
    names: tuple[str, str]
    """The key and the text file that hold the class names."""
    classes: int
    label_key: str


_CIFAR10 = _Layout(
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    folders=("cifar-10-batches-py", "cifar-10-batches-bin"),
    label_bytes=("labels",),
    names=("label_names", "batches.meta.txt"),
    classes=10,
    label_key="labels",
)


def load_cifar10(spec: DataSpec, *, train_images: int | None, seed: int) -> Splits:
    """CIFAR-10: five training batches and a test batch. Raises `DataError`, and `LoadError` for unsafe pickles."""
    return _load(spec, _CIFAR10, train_images, seed)


def load_cifar100(spec: DataSpec, *, train_images: int | None, seed: int) -> Splits:
    """CIFAR-100, with its 100 classes or, for `labels=coarse`, its 20 superclasses (the paper's). Raises as above."""
    labels = spec.option("labels")
    layout = _Layout(
        train=("train",),
        test="test",
        meta="meta",
        folders=("cifar-100-python", "cifar-100-binary"),
        label_bytes=("coarse_labels", "fine_labels"),
        names=(f"{labels}_label_names", f"{labels}_label_names.txt"),
        classes=100 if labels == "fine" else 20,
        label_key=f"{labels}_labels",
    )
    return _load(spec, layout, train_images, seed)


def _load(spec: DataSpec, layout: _Layout, train_images: int | None, seed: int) -> Splits:
    files = _find(spec, layout)
    read = _read_binary if f"{layout.test}.bin" in files else _read_pickle
    batches = [read(files, name, layout) for name in layout.train]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    keep = choose(labels, train_images, seed, spec.text)
    test_images, test_labels = read(files, layout.test, layout)
    return Splits(
        name=spec.text,
        train=Split(images=np.ascontiguousarray(images[keep]), labels=labels[keep]),
        test=Split(images=np.ascontiguousarray(test_images), labels=test_labels),
        classes=_class_names(files, layout),
        citation=_CITATION,
    )


_Files = dict[str, Callable[[], tuple[str, bytes]]]
"""Name inside the archive -> a function that gives the full name, for errors, and the bytes."""


def _find(spec: DataSpec, layout: _Layout) -> _Files:
    """The batches under the spec's path. Raises `DataError` if it holds none, or not all of them."""
    path = Path(spec.path or "")
    if not path.exists():
        raise DataError(f"{path} does not exist (for --data {spec})", hint="check the path; it is relative to here")
    wanted = {*layout.train, layout.test, layout.meta, layout.names[1]}
    wanted |= {f"{name}.bin" for name in (*layout.train, layout.test)}
    files = _in_folder(path, wanted, layout) if path.is_dir() else _in_archive(path, wanted)
    if not files:
        raise DataError(f"{path} holds no {spec.name} files", hint=f"they are {', '.join(layout.train)}, {layout.test}")
    suffix = ".bin" if any(name.endswith(".bin") for name in files) else ""
    for name in (*layout.train, layout.test):
        if name + suffix not in files:
            raise DataError(f"{path}: {name + suffix} is missing", hint=f"the data is incomplete; {_AGAIN}")
    return files


def _in_folder(folder: Path, wanted: set[str], layout: _Layout) -> _Files:
    for place in (folder, *(folder / name for name in layout.folders)):
        there = os.path.lexists(place) and is_folder(place)
        found = {path.name: path for path in place.iterdir() if path.name in wanted} if there else {}
        if found:
            return {name: lambda path=path: (str(path), _read(path)) for name, path in found.items()}  # type: ignore[misc]
    for archive in sorted(folder.glob("cifar-10*.tar.gz")):
        if archive.name.startswith(layout.folders[0].removesuffix("-batches-py").removesuffix("-python") + "-"):
            return _in_archive(archive, wanted)
    return {}


def _in_archive(archive: Path, wanted: set[str]) -> _Files:
    """The wanted members, read into memory; nothing is extracted to the disk."""
    found: dict[str, bytes] = {}
    try:
        with _unpacked(regular(archive)) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            for number, member in enumerate(tar, 1):
                if number > _MOST_MEMBERS:
                    raise DataError(f"{archive} holds more than {_MOST_MEMBERS:,} members", hint=_AGAIN)
                name = Path(member.name).name
                stream.check(member.size, f"{archive}: {name}")  # as it claims; of holes it may claim any number
                if name in wanted and member.isfile() and (content := tar.extractfile(member)):
                    found[name] = content.read()
                    if len(found[name]) != member.size:
                        raise EOFError(f"{name} ends early")
    except DataError:
        raise
    except Exception as error:  # odd headers make tarfile raise more than its own errors
        if refused(error):
            raise unreadable(archive, error) from error
        raise DataError(f"{archive} is no whole tar archive: {error}", hint=_AGAIN) from error
    return {name: lambda name=name: (f"{archive}: {name}", found[name]) for name in found}  # type: ignore[misc]


_PACKED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x5d\x00\x00": lzma.open,
}
"""How a compressed file begins -> what opens it."""


def _unpacked(archive: Path) -> _Bounded:
    with open(archive, "rb") as file:
        head = file.read(8)
    opened = next((opener for magic, opener in _PACKED.items() if head.startswith(magic)), None)
    return _Bounded(opened(archive) if opened else open(archive, "rb"), str(archive))


class _Bounded(io.RawIOBase):
    """What an archive unpacks to, and no more of it than `_MOST_BYTES`; a megabyte can stand for a gigabyte."""

    def __init__(self, stream: io.BufferedIOBase, name: str) -> None:
        self._stream, self._name = stream, name
        self._given = self._claimed = self._ended = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer at the end. Raises `DataError` beyond the bound, and `EOFError` well past the end.

        There tarfile would read on and on, to where a header says that the next one is.
        """
        data = self._stream.read(size)
        self._ended += not data
        if self._ended > _READS_PAST_END:
            raise EOFError("it ends early")
        self._given += len(data)
        if self._given > _MOST_BYTES:
            raise _too_large(self._name)
        return data

    def check(self, size: int, name: str) -> None:
        """Raise `DataError` where a member, or all so far, claim more than the bound, or less than nothing."""
        self._claimed += size
        if size < 0 or self._claimed > _MOST_BYTES:
            raise _too_large(name)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _too_large(name: str) -> DataError:
    return DataError(
        f"{name} is more than the {_MOST_BYTES / 2**20:,.4g} MiB that are read of a CIFAR archive", hint=_AGAIN
    )


def _read(path: Path) -> bytes:
    try:
        with explained(path):
            size = regular(path).stat().st_size
            if size > _MOST_BYTES:
                raise _too_large(str(path))
            return read_bytes(path, at_most=size)
    except Malformed as error:  # it grows while it is read
        raise DataError(f"{path} {error}", hint=_AGAIN) from error


def _read_pickle(files: _Files, name: str, layout: _Layout) -> tuple[Images, Labels]:
    where, raw = files[name]()
    batch = safe_pickle.load(raw, where)
    data: Any = batch.get("data")
    labels: Any = batch.get(layout.label_key)
    if not isinstance(data, np.ndarray) or not isinstance(labels, list):
        missing = "data" if not isinstance(data, np.ndarray) else layout.label_key
        raise DataError(f"{where} has no {missing!r}; it has {', '.join(map(str, batch))}", hint=_AGAIN)
    if data.ndim != 2 or data.shape[1] != _PIXELS or not all(type(label) is int for label in labels):
        raise DataError(f"{where}: images are {data.shape}, not (N, {_PIXELS}) with a number each", hint=_AGAIN)
    try:
        numbers = np.array(labels, np.int64)
    except OverflowError as error:
        image = next(i for i, label in enumerate(labels) if label.bit_length() > 63)
        raise DataError(
            f"{where}: image {image} has a label of {labels[image].bit_length()} bits, "
            f"the classes are 0 to {layout.classes - 1}",
            hint=_AGAIN,
        ) from error
    return _checked(where, data, numbers, layout)


def _read_binary(files: _Files, name: str, layout: _Layout) -> tuple[Images, Labels]:
    where, raw = files[f"{name}.bin"]()
    head = len(layout.label_bytes)
    if len(raw) % (head + _PIXELS):
        raise DataError(f"{where} is {len(raw)} bytes, no multiple of {head + _PIXELS}: it ends early", hint=_AGAIN)
    records = np.frombuffer(raw, np.uint8).reshape(-1, head + _PIXELS)
    labels = records[:, layout.label_bytes.index(layout.label_key)].astype(np.int64)
    return _checked(where, records[:, head:], labels, layout)


def _checked(where: str, data: Images, labels: Labels, layout: _Layout) -> tuple[Images, Labels]:
    if not len(data):
        raise DataError(f"{where} is empty", hint=_AGAIN)
    if len(data) != len(labels):
        raise DataError(f"{where} has {len(data)} images and {len(labels)} labels", hint=_AGAIN)
    if (wrong := np.flatnonzero((labels < 0) | (labels >= layout.classes))).size:
        raise DataError(
            f"{where}: image {wrong[0]} has label {labels[wrong[0]]}, the classes are 0 to {layout.classes - 1}",
            hint=_AGAIN,
        )
    return data.reshape(-1, 3, 32, 32), labels


def _class_names(files: _Files, layout: _Layout) -> tuple[str, ...]:
    """The class names, where the files have them; the numbers elsewhere."""
    key, text_file = layout.names
    names: Any = ()
    if layout.meta in files:
        where, raw = files[layout.meta]()
        names = safe_pickle.load(raw, where).get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{where}: {key!r} is no list of names", hint=_AGAIN)
    elif text_file in files:
        names = files[text_file]()[1].decode("utf-8", "replace").split()
    if len(names) == layout.classes:
        return tuple(map(str, names))
    return tuple(str(label) for label in range(layout.classes))
