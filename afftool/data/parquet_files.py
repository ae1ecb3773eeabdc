"""Which Parquet file holds which split, in the layouts that the Hugging Face hub and its users write."""

from __future__ import annotations

import re
from pathlib import Path

from afftool.data.reading import entries_below, visible
from afftool.errors import DataError

_PARTS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}
_WORD = re.compile(rf"(?<![^-_. ])({'|'.join(_PARTS)})(?![^-_. ])")


def split_files(root: Path) -> dict[str, list[Path]]:
    """The files of `train`, `test` and, where there is a third, `val`: in the folder or one or more levels down.

    train*.parquet, test*.parquet and val*.parquet; where these are not all, CONFIG-train*.parquet and files in a
    folder called train (CONFIG/train/0000.parquet, the hub's own conversion) too. Raises `DataError`.
    """
    files = entries_below(root, lambda path: path.match("*.parquet"))
    found = {part: [path for path in files if path.name.startswith(part)] for part in ("train", "test", "val")}
    used = (found["train"], found["test"] or found["val"])
    homes = [{path.parent for path in paths} for paths in used]
    if not all(used):
        found = {part: [path for path in files if _part(path, root) == part] for part in found}
        homes = [{_home(path, root) for paths in found.values() for path in paths}]
    if not found["test"]:
        found["test"] = found.pop("val")
    for part, names in {"train": "train*.parquet", "test": "test*.parquet or val*.parquet"}.items():
        if not found[part]:
            listed = ", ".join(sorted(path.name for path in visible(root))[:8]) or "nothing"
            raise DataError(
                f"{root} has no {names}; it holds {listed}",
                hint="give the folder that holds the files; CONFIG-train*.parquet and train/*.parquet will do as well",
            )
    for places in homes:
        if len(places) > 1:
            listed = ", ".join(sorted(map(str, places)))
            raise DataError(f"{root} holds several datasets: {listed}", hint="give the path of one of them")
    return {part: paths for part, paths in found.items() if paths}


def _part(path: Path, root: Path) -> str | None:
    """The split by a word of the name (the last, as a configuration comes first), by the folder, or by its start."""
    if words := _WORD.findall(path.stem):
        return _PARTS[words[-1]]
    if _in_split(path, root):
        return _PARTS[path.parent.name]
    return next((part for part in ("train", "test", "val") if path.name.startswith(part)), None)


def _home(path: Path, root: Path) -> Path:
    """The folder of the dataset: above the split's where the split has its own."""
    return path.parent.parent if _in_split(path, root) else path.parent


def _in_split(path: Path, root: Path) -> bool:
    return path.parent != root and path.parent.name in _PARTS
