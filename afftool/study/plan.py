"""From a study to its cells: the data read, every variant built and tried, budgets checked, before any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from afftool.data import load
from afftool.data.splits import Splits
from afftool.errors import SpecError
from afftool.global_state import sentence, set_by
from afftool.masked import masked
from afftool.registry import need
from afftool.spec import targets_of
from afftool.study.arrays import Arrays, Subsets, arrays
from afftool.study.cells import CellSpec, Facts, StoredPlan
from afftool.study.code import Origin, origin_of
from afftool.study.opened import watched
from afftool.study.recipe import Recipe
from afftool.study.spec import StudySpec, Variant
from afftool.study.train import TRAINING
from afftool.study.trial import check_same_start, sample_of, task_of, tried

Compile = Literal["auto", "always", "never"]
COMPILE_GAIN = {"cpu": 0.0, "cuda": 0.25}
"""Share of a training's time that torch.compile is taken to save. On the CPU its code for small maps is no faster."""
COMPILE_COST_S = 60.0
RATE_MACS_PER_S = {"cpu": 1e10, "cuda": 5e12}
"""Multiply-adds a second that small networks reach without a compiler; only the order of magnitude matters."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """How cells run: the device's kind, threads a cell, and whether it is compiled. Part of every cell's identity."""

    device: str = "cpu"
    threads: int = 1
    compiled: Compile = "auto"

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise SpecError(f"threads={self.threads} is too small", hint="use --threads 1")

    @property
    def dtype(self) -> str:
        """bfloat16 (autocast) on CUDA, float32 elsewhere."""
        return "bfloat16" if self.device == "cuda" else "float32"


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A study made concrete. `cells` are in training order: all variants of a seed before the next seed.

    `note` is what the data's source had to assume, `adapted` what of the defaults could not work with it, `warnings`
    what else there is to know before anything is trained (what no gradient reaches, files that change the whole
    process), and `trust` on what modules of the user's own are trusted.
    """

    study: StudySpec
    cells: tuple[tuple[str, int, CellSpec], ...]
    facts: Mapping[str, Facts]
    subsets: Subsets
    citation: str = ""
    note: str = ""
    adapted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()

    @property
    def data(self) -> Arrays:
        """The first subset, which tells what all have alike: size, classes, task, how many images."""
        return next(iter(self.subsets.values()))

    def stored(self) -> StoredPlan:
        """The plan as the store keeps it."""
        return StoredPlan(
            study=masked(self.study.to_toml()),
            cells=tuple((name, seed, cell.identity) for name, seed, cell in self.cells),
            facts=self.facts,
            train_images=len(self.data.train_images),
            test_images=len(self.data.test_images),
            size=self.data.size,
            classes=self.data.classes,
            task=self.data.task,
            citation=self.citation,
            note=self.note,
            notes=self.adapted + self.warnings + self.trust or None,
            test_splits=tests if (tests := len({id(d.test_images) for d in self.subsets.values()})) > 1 else None,
        )


def plan(study: StudySpec, conditions: Conditions, *, batch_chosen: bool = True) -> Plan:
    """Read the data, build and try every variant once, and check budgets.

    A batch of the study's recipe that was not chosen shrinks where the data is smaller.

    Raises `DataError` for the data, `SpecError` for a batch or a budget that cannot be, `ShapeError` or `LoadError`
    for a module that fails on this data or that no gradient passes.
    """
    for module in ("scipy", "torchmetrics"):
        need(module, "ablate")
    splits = load(study.data_spec, train_images=study.train_images, seed=study.data_seed)
    adapted: tuple[str, ...] = ()
    if not batch_chosen:
        study, adapted = _fitted(study, len(splits.train))
    for variant in study.variants:
        _check_batch(study.recipe_of(variant), len(splits.train), splits.name)
    with watched(_targets(study)):
        task = task_of(study, splits)
    data = arrays(splits, task)
    subsets = {splits.fingerprint: data, **_further_subsets(study, splits, data)}
    sample = sample_of(splits)
    # Every variant is built and run once before the first is trained: a budget that is off, or a module that fails,
    # would otherwise be found after hours.
    with watched(_targets(study)):
        trials = {v.name: tried(study, v, data, sample) for v in study.variants}
    facts = {name: trial.facts for name, trial in trials.items()}
    check_same_start(trials)
    if not any(fact.fuses for fact in facts.values()):
        raise SpecError(
            f"no variant's fusion is ever run in {study.host}, so none can differ from another",
            hint="build each fusion with the factory and call it in forward; `stages` says where a host fuses",
        )
    check_budget(study, {name: fact.params for name, fact in facts.items()})
    origins = _origins(study)
    codes = {name: origin.code for name, origin in origins.items()}
    fingerprints = list(subsets)
    drawn = {seed: fingerprints[study.data_seed_of(seed) - study.data_seed] for seed in study.seeds}
    cells = tuple(
        (
            variant.name,
            seed,
            _cell(study, variant, seed, facts[variant.name], codes[variant.name], drawn[seed], data, conditions),
        )
        for seed in study.seeds
        for variant in study.variants
    )
    _refuse_twins(cells)
    warnings = [trial.warning for trial in trials.values() if trial.warning] + _global_state(study)
    return Plan(
        study=study,
        cells=cells,
        facts=facts,
        subsets=subsets,
        citation=splits.citation,
        note=splits.note,
        adapted=adapted,
        warnings=tuple(dict.fromkeys(warnings)),
        trust=_trust(origins),
    )


def _further_subsets(study: StudySpec, first: Splits, data: Arrays) -> dict[str, Arrays]:
    """The subsets of the study's further data seeds, by fingerprint. Raises `SpecError` where one is there already."""
    seeds, found = {first.fingerprint: study.data_seed}, {}
    for seed in range(study.data_seed + 1, study.data_seed + study.data_seeds):
        splits = load(study.data_spec, train_images=study.train_images, seed=seed)
        if (other := seeds.setdefault(splits.fingerprint, seed)) != seed:
            raise SpecError(
                f"data seeds {other} and {seed} draw the same {len(splits.train)} training images of {splits.name}",
                hint=f"--train-images below {len(splits.train)} leaves some to choose; or leave --data-seeds out",
            )
        found[splits.fingerprint] = arrays(splits, data.task).sharing_tests(data)
    return found


def _origins(study: StudySpec) -> dict[str, Origin]:
    """What each variant came from; a package of hundreds of files is read once for all that are made of the same."""
    targets = {v.name: tuple(targets_of(v.fusion_spec, study.host_of(v))) for v in study.variants}
    found = {own: origin_of(*own) for own in dict.fromkeys(targets.values())}
    return {name: found[own] for name, own in targets.items()}


def _targets(study: StudySpec) -> list[str]:
    """The objects of the user's own that its variants are made of, each once."""
    return list(dict.fromkeys(t for v in study.variants for t in targets_of(v.fusion_spec, study.host_of(v))))


def _trust(origins: Mapping[str, Origin]) -> tuple[str, ...]:
    """On what the variants with a module of the user's own are trusted, once for those that came from the same."""
    names: dict[Origin, list[str]] = {}
    for name, origin in origins.items():
        if origin.code:
            names.setdefault(dataclasses.replace(origin, code=""), []).append(name)
    return tuple(origin.told(", ".join(alike)) for origin, alike in names.items())


def check_budget(study: StudySpec, params: Mapping[str, int]) -> None:
    """Stop a study whose variants do not have the budget it promises. Raises `SpecError` and says which one is off.

    The one that is off is the one furthest from the median, so that one bad variant is not blamed on the others.
    """
    if study.budget is None:
        return
    bound = {name: count for name, count in params.items() if name not in study.budget.exempt}
    if len(bound) < 2 or max(bound.values()) - min(bound.values()) <= study.budget.tolerance * min(bound.values()):
        return
    middle = sorted(bound.values())[(len(bound) - 1) // 2]
    off = max(bound, key=lambda name: abs(bound[name] - middle))
    least, most = (choose(bound, key=lambda name: bound[name]) for choose in (min, max))
    allowed = f"within {study.budget.tolerance:.1%} of each other" if study.budget.tolerance else "exactly equal"
    counts = ", ".join(f"{name} {count:,}" for name, count in bound.items())
    raise SpecError(
        f"the budget of study {study.name!r} is off: {off} has {bound[off]:,} parameters, and all should be {allowed}: "
        f"{most} has {bound[most] / bound[least] - 1:.2%} more than {least} ({counts})",
        hint="set its reduction so that it fits, exempt it in the study's [budget], or pass --any-budget to compare "
        "unequal budgets",
    )


def pays_to_compile(device: str, macs: int | None, images: int) -> bool:
    """Whether torch.compile saves more time than it takes, by rule and not by a stopwatch, so that all runs agree.

    A training step is taken to cost three forward passes of `macs` an image, for `images` in all epochs together.
    """
    seconds = 3 * (macs or 0) * images / RATE_MACS_PER_S[device]
    return COMPILE_GAIN[device] * seconds > COMPILE_COST_S


def _global_state(study: StudySpec) -> list[str]:
    """What files of the user's set for the whole process while the variants were tried, once a file."""
    return [f"{sentence([target], found)}." for target in _targets(study) if (found := set_by(target))]


def _cell(
    study: StudySpec,
    variant: Variant,
    seed: int,
    facts: Facts,
    code: str,
    fingerprint: str,
    data: Arrays,
    conditions: Conditions,
) -> CellSpec:
    recipe = study.recipe_of(variant)
    images = recipe.epochs * len(data.train_images)
    compiled = {
        "always": True,
        "never": False,
        "auto": pays_to_compile(conditions.device, facts.macs, images),
    }[conditions.compiled]
    return CellSpec(
        fusion=variant.fusion_spec.text,
        host=facts.host,
        data=masked(study.data_spec.text),
        fingerprint=fingerprint,
        train_images=study.train_images,
        data_seed=study.data_seed_of(seed),
        recipe=recipe,
        seed=seed,
        draw=variant.draw,
        device=conditions.device,
        threads=conditions.threads,
        dtype=conditions.dtype,
        compiled=compiled,
        torch=torch.__version__,
        capability=torch.backends.cpu.get_cpu_capability() if conditions.device == "cpu" else "",
        training=TRAINING,
        code=code,
    )


def _check_batch(recipe: Recipe, images: int, name: str) -> None:
    if recipe.batch > images:
        raise SpecError(
            f"a batch of {recipe.batch} is larger than the data: {name} has {images} training images",
            hint=f"use --batch {_fitting(images)} or less, or more training images",
        )


def _fitted(study: StudySpec, images: int) -> tuple[StudySpec, tuple[str, ...]]:
    """The study with a batch that so many images hold, and what was changed for it."""
    batch, least = study.recipe.batch, 2
    if batch <= images or images < least:
        return study, ()
    recipe = dataclasses.replace(study.recipe, batch=_fitting(images))
    note = (
        f"The batch is {recipe.batch} and not the recipe's {batch}, of which {images} training images hold none; "
        "--batch chooses another."
    )
    return dataclasses.replace(study, recipe=recipe), (note,)


def _fitting(images: int) -> int:
    """A batch that makes four steps of an epoch, where there are so many images; batch norm needs two."""
    return max(2, images // 4)


def _refuse_twins(cells: tuple[tuple[str, int, CellSpec], ...]) -> None:
    seen: dict[str, str] = {}
    for name, _, cell in cells:
        other = seen.setdefault(cell.identity, name)
        if other != name:
            raise SpecError(
                f"variants {other!r} and {name!r} are the same fusion in the same host, trained alike",
                hint='leave one out; for an A/A study give them different draws, as draw = "a"',
            )
