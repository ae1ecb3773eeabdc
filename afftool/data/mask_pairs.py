"""Which mask belongs to which image in one split of a segmentation folder."""

from __future__ import annotations

from pathlib import Path

from afftool.data.folder import image_files
from afftool.data.reading import is_folder, visible
from afftool.errors import DataError

_PARTS = ("images", "masks")


def mask_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Every image with its mask: of the same stem and, where a stem occurs twice, in the same folder below.

    In the order of the stems, or of the paths. Raises `DataError` for one without the other.
    """
    found = {entry.name for entry in visible(folder) if entry.name in _PARTS and is_folder(entry)}
    for part in _PARTS:
        if part not in found:
            raise DataError(f"{folder} has no {part}/ folder", hint="masks data lies in SPLIT/images and SPLIT/masks")
    files = {part: image_files(folder / part) for part in _PARTS}
    stems = all(len({path.stem for path in paths}) == len(paths) for paths in files.values())
    images, masks = (_named(files[part], None if stems else folder / part) for part in _PARTS)
    if not images:
        raise DataError(f"{folder / 'images'} has no images", hint="add images, with masks of the same stem")
    if odd := sorted(images.keys() ^ masks.keys()):
        have, lack = ("image", "mask") if odd[0] in images else ("mask", "image")
        path = images.get(odd[0]) or masks[odd[0]]
        raise DataError(
            f"{path} has no {lack} ({len(odd)} of {len(images | masks)} stems lack their partner)",
            hint=f"each {have} needs its {lack} of the same name, apart from the ending"
            + ("" if stems else ", in a folder of the same name"),
        )
    return [(images[name], masks[name]) for name in sorted(images)]


def _named(paths: list[Path], below: Path | None) -> dict[str, Path]:
    """Files by stem, or by their path below a folder without its ending. Raises `DataError` if two are one."""
    named: dict[str, Path] = {}
    for path in paths:
        name = path.stem if below is None else path.relative_to(below).with_suffix("").as_posix()
        if name in named:
            raise DataError(f"{named[name]} and {path} differ in their ending alone", hint="remove or rename one")
        named[name] = path
    return named
