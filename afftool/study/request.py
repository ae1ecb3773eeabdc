"""From the words of a command line to a study: a built-in one or a TOML file, with what the user changes in it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afftool import catalog, received
from afftool.catalog import STUDIES
from afftool.data.spec import DataSpec
from afftool.errors import LoadError, SpecError
from afftool.received import Malformed
from afftool.registry import unknown
from afftool.spec import MODULE
from afftool.spec.text import read_options
from afftool.study.opened import watched
from afftool.study.recipe import Recipe, recipe
from afftool.study.spec import StudySpec, first_seeds, toml_fields


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user said; None where nothing was said."""

    study: str
    host: str | None = None
    data: str | None = None
    train_images: int | None = None
    data_seed: int | None = None
    data_seeds: int | None = None
    seeds: int | None = None
    variants: tuple[str, ...] = ()
    baseline: str | None = None
    recipe: str | None = None
    epochs: int | None = None
    batch: int | None = None
    any_budget: bool = False


def requested(request: Request) -> StudySpec:
    """The study asked for. Raises `UnknownName`, `LoadError` or `SpecError`; touches no data, and no torch.

    Unless a network of the user's own has to say what stages it has: it is imported, or traced at the images' size.
    """
    with watched():  # a host of the user's own may be imported here already
        spec = _read(request)
    changes: dict[str, Any] = {
        name: getattr(request, name)
        for name in ("host", "data", "train_images", "data_seed", "data_seeds")
        if getattr(request, name) is not None
    }
    if request.data is not None and request.train_images is None:
        changes["train_images"] = None
    if request.seeds is not None:
        changes["seeds"] = first_seeds("--seeds", request.seeds)
    changes["recipe"] = _recipe(spec.recipe, request)
    if request.any_budget:
        changes["budget"] = None
    if request.variants:
        spec = spec.with_variants(list(request.variants))
    if request.baseline is not None:
        changes["baseline"] = request.baseline
    spec = dataclasses.replace(spec, **changes)
    _ = spec.data_spec  # read now, so that a bad name is refused before any work
    if spec.host_spec == MODULE:
        raise SpecError(
            "--host module, the bare fusion, answers nothing to train", hint="use --host resnet:b=1, for example"
        )
    return spec


def batch_chosen(request: Request) -> bool:
    """Whether the user wrote a batch: as an option, in the recipe's text, or in the study's file."""
    if request.batch is not None:
        return True
    path = Path(request.study)
    own = path.suffix == ".toml" and "batch" in toml_fields(_text(path), str(path)).get("recipe", {})
    if request.recipe is None:
        return own
    name, *parts = request.recipe.split(":")
    return "batch" in read_options(parts, request.recipe, "recipe") or (own and not name)


def _read(request: Request) -> StudySpec:
    name, path = request.study, Path(request.study)
    if path.suffix != ".toml":
        if name not in STUDIES:
            raise unknown("study", name, STUDIES)
        from afftool.study.grids import study

        return study(name, request.host, lambda: _image_size(request))
    return StudySpec.from_toml(_text(path), source=str(path))


def _image_size(request: Request) -> tuple[int, ...]:
    """Height and width of the images asked for: as their text says, or as they are. Raises `DataError`."""
    spec = DataSpec.parse(request.data or StudySpec.data)
    if "size" in catalog.DATASETS[spec.name].knobs and (size := spec.size()):
        return size
    from afftool.data import load  # numpy and pyarrow: only here, where nothing else tells

    splits = load(spec, train_images=request.train_images, seed=request.data_seed or 0)
    return tuple(splits.train.images.shape[2:])


def _text(path: Path) -> str:
    hint = "`afftool ablate scale --print > my.toml` writes one to start from"
    try:
        return received.read_text(path)
    except (OSError, Malformed) as error:
        raise LoadError(f"cannot read the study {path}: {received.why(error)}", hint=hint) from error


def _recipe(own: Recipe, request: Request) -> Recipe:
    """The study's own recipe, or the named one, with the settings given."""
    chosen = own
    if request.recipe is not None:
        name, *parts = request.recipe.split(":")
        settings = read_options(parts, request.recipe, "recipe")
        chosen = recipe(name, **settings) if name else own.with_settings(settings)
    given = {"epochs": request.epochs, "batch": request.batch}
    return chosen.with_settings({key: value for key, value in given.items() if value is not None})
