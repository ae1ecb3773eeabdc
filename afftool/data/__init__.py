"""Images in memory, from wherever they lie: `load("parquet:PATH")` gives training and test splits as uint8 arrays.

One file a source; each has `load(spec, *, train_images, seed) -> Splits`. To add one: a file and a line in
`afftool.catalog.DATASETS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from afftool import catalog, registry
from afftool.data.reading import explained
from afftool.data.spec import DataSpec
from afftool.errors import SpecError

if TYPE_CHECKING:
    from afftool.data.splits import Splits


def load(text: str | DataSpec, train_images: int | None = None, seed: int = 0) -> Splits:
    """Load the data that `NAME[:PATH][:key=value]...` names, with a stratified subset of `train_images` if given.

    `seed` draws the subset, and the images themselves where they are procedural; it is the data's own and should
    stay the same for all cells of a study. Same text, number and seed: the same bytes, in any process.
    Raises `UnknownName`, `UnknownKey` or `SpecError` for the text and `DataError` for the data.
    """
    spec = DataSpec.parse(text) if isinstance(text, str) else text
    if train_images is not None and train_images < 1:
        raise SpecError(f"{train_images} training images are too few", hint="use --train-images 1 or more")
    read = registry.load(catalog.DATASETS[spec.name].loader)
    with explained(spec.path or spec.name):
        splits: Splits = read(spec, train_images=train_images, seed=seed)
    return splits


__all__ = ["DataSpec", "load"]
