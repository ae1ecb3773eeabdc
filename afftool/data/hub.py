"""`hub`: a dataset by its name on the Hugging Face hub, or a local folder in any form that library reads."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from afftool.data.columns import class_names, encoded, pick, read_labels
from afftool.data.decode import decode_images
from afftool.data.reading import entries_below, regular
from afftool.data.spec import DataSpec
from afftool.data.splits import Split, Splits, choose
from afftool.errors import DataError
from afftool.registry import need

MOST_VALUES = 1_000_000
"""Of a README; one that names 20,000 classes in ten configurations has a fifth."""


def load(spec: DataSpec, *, train_images: int | None, seed: int) -> Splits:
    """Fetch through `datasets` (which keeps its own cache) and decode only the subset. Raises `DataError`."""
    datasets = need("datasets", "hub")
    local = _check_files(Path(spec.path or ""))
    with _complaints() as complaints:
        try:
            if local:
                _refuse_addresses(spec, Path(spec.path or ""))
                _check_sources(spec, datasets.load_dataset_builder(spec.path, spec.option("config") or None))
            parts = datasets.load_dataset(spec.path, spec.option("config") or None)
        except DataError:
            raise
        except Exception as error:  # the library passes on whatever its file systems and builders raise
            causes = [f"{type(e).__name__}: {e}" for e in (error, error.__cause__) if e]
            what = "; ".join([*causes, *complaints])
            here = "check or replace its files (where they are Parquet, --data parquet:PATH names the broken one)"
            on_hub = "check the name on the hub, its configurations (:config=NAME), and the network"
            raise DataError(
                f"{spec}: the datasets library could not load it: {what}",
                hint=f"{here}, and :config=NAME" if local else on_hub,
            ) from error
    names = {"train": "train", "test": next((p for p in ("test", "validation", "val") if p in parts), "test")}
    if missing := [part for part in names.values() if part not in parts]:
        raise DataError(f"{spec} has no {missing[0]} split", hint=f"it has {', '.join(parts)}")
    if names["test"] == "test" and "validation" in parts:
        names["val"] = "validation"

    features: Any = parts["train"].features
    image = pick(spec, "image", _of_kind(features, datasets.Image), list(features))
    label = pick(spec, "label", _of_kind(features, datasets.ClassLabel), list(features))
    given = features[label].names if isinstance(features[label], datasets.ClassLabel) else []
    train_labels = read_labels(_column(parts["train"], label), f"{spec}, train")
    classes = class_names(given, train_labels, f"{spec}, train")
    # What the library has fetched or unpacked lies in its own caches, and it names files by their whole path.
    config, hub = datasets.config, need("huggingface_hub.constants", "hub")
    caches = [Path(p) for p in (config.DOWNLOADED_DATASETS_PATH, config.HF_DATASETS_CACHE, hub.HF_HUB_CACHE)]
    folder = Path(spec.path or "").absolute() if local else caches[0]

    to_come = sum(len(parts[name]) for part, name in names.items() if part != "train")

    def read(part: str) -> Split:
        nonlocal to_come
        where = f"{spec}, {names[part]}"
        rows = parts[names[part]]
        labels = train_labels if part == "train" else read_labels(_column(rows, label), where)
        keep = choose(labels, train_images if part == "train" else None, seed, spec.text)
        cells = rows.select(keep).cast_column(image, datasets.Image(decode=False))[image]
        images = (
            encoded(cell, f"{where}: row {row}", folder, (folder, *caches))
            for row, cell in zip(keep, cells, strict=True)
        )
        to_come -= 0 if part == "train" else len(keep)
        decoded = decode_images(images, len(keep), spec.size(), spec.text, to_come=to_come)
        return Split(images=decoded, labels=labels[keep])

    return Splits(
        name=spec.text,
        train=read("train"),
        test=read("test"),
        val=read("val") if "val" in names else None,
        classes=classes,
    )


def _column(rows: Any, label: str) -> Any:
    return rows.select_columns([label]).with_format("arrow")[:].column(label)


def _check_files(folder: Path) -> bool:
    """Whether it is a folder here, and not a name. Raises `DataError` for a dead link or a pipe in it.

    The library leaves those out and says nothing.
    """
    if not folder.is_dir():
        return False
    for path in entries_below(folder, lambda path: not path.name.startswith(".")):
        if not path.is_dir():
            regular(path)
    return True


def _refuse_addresses(spec: DataSpec, folder: Path) -> None:
    """Raises `DataError` for a README whose files have an address: the library asks there before it says what it found.

    What it raises for a README that cannot be read it raises again when it reads that itself.
    """
    card = folder / "README.md"
    if not card.is_file():
        return
    found = need("huggingface_hub.repocard", "hub").metadata_load(card) or {}
    left: list[tuple[bool, Any]] = [(key == "configs", value) for key, value in found.items()]
    count = 0
    while left:
        takes, value = left.pop()
        if takes and isinstance(value, str) and "://" in value:
            raise _from_elsewhere(spec, value)
        if isinstance(value, (list, dict)):
            left += [(takes, inner) for inner in (value.values() if isinstance(value, dict) else value)]
        count += 1
        if count + len(left) > MOST_VALUES:  # YAML has references: a few lines may stand for any number
            raise DataError(f"{spec}: its README says more than {MOST_VALUES:,} things", hint=f"shorten {card}")


def _from_elsewhere(spec: DataSpec, name: str) -> DataError:
    return DataError(
        f"{spec}: its README takes data from {name}, which is not in that folder",
        hint="copy the files into it, or name the folder or the data set that holds them",
    )


def _check_sources(spec: DataSpec, builder: Any) -> None:
    """Raises `DataError` for a file that a folder's README takes from elsewhere: by an address, or by a path out of it.

    Links in the folder are followed, as everywhere.
    """
    folder = os.path.abspath(spec.path or "")
    for files in (builder.config.data_files or {}).values():
        for name in map(str, files):
            below = Path(os.path.abspath(name)).is_relative_to(folder)
            if "://" in name or not (below or Path(name).resolve().is_relative_to(Path(folder).resolve())):
                raise _from_elsewhere(spec, name)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the library logs as errors inside: only there does it name the file that it could not read."""
    said: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("datasets")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _of_kind(features: Any, kind: type) -> list[str]:
    return [name for name, feature in features.items() if isinstance(feature, kind)]
