"""What an ablation asks: a study, which is a grid of variants and seeds, frozen, valid or not built.

A study is read from TOML and written as TOML. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from afftool.data.spec import DataSpec
from afftool.errors import LoadError, SpecError
from afftool.plain import field_names, from_user, later, refuse_unknown, to_plain, toml, unsaid
from afftool.received import Malformed, toml_of
from afftool.registry import unknown
from afftool.spec import Grammar, HostSpec
from afftool.spec.amounts import MOST_CASES, MOST_SEEDS, check_whole
from afftool.study import published
from afftool.study.recipe import Recipe, recipe
from afftool.study.variant import Variant, crossed


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Parameters that the variants must agree in: within `tolerance` (a share; 0 is exactly), but for the `exempt`."""

    tolerance: float = 0.0
    exempt: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise SpecError(f"budget tolerance={self.tolerance} is not a share in [0, 1)", hint="0.02 means 2%")


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """A grid: variants x seeds, on one host and one data set, trained by one recipe.

    `data_seeds` are how many training subsets its seeds take in turn, drawn with `data_seed` and the numbers after it.
    `baseline` is the variant the others are compared with; `published` names the table of the paper to set beside it;
    `signal` adds what the fusions do to the signal at initialisation; `across` is the knob of the host that the fusions
    are crossed with, if any. The fields stand in the order in which TOML has them.
    """

    name: str
    summary: str = ""
    host: str = "resnet:b=1"
    data: str = "shapes:size=16:train=3200"
    train_images: int | None = None
    data_seed: int = 0
    data_seeds: int = later(1)
    seeds: tuple[int, ...] = tuple(range(7))
    baseline: str
    published: str | None = None
    signal: bool = False
    across: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    budget: Budget | None = None
    variants: tuple[Variant, ...]

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not re.fullmatch(r"[^\W_][\w .+=-]{0,79}", self.name):
            raise SpecError(
                f"{self.name!r} cannot name a study, whose files are called after it",
                hint="use up to 80 letters, digits, spaces and _ . + = -",
            )
        if self.published is not None and not published.known(self.published):
            raise unknown("published table", self.published, published.TABLES)
        if len(self.variants) < 2:
            raise SpecError(
                f"study {self.name!r} has {len(names)} variants, and compares nothing", hint="give two or more variants"
            )
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SpecError(f"two variants are named {twice!r}", hint="every variant needs a name of its own")
        if self.baseline not in names:
            raise SpecError(f"the baseline {self.baseline!r} is not a variant", hint=f"choose from {', '.join(names)}")
        check_whole("data_seed", self.data_seed, least=0, hint="for example --data-seed 1")
        check_whole("the number of seeds", len(self.seeds), most=MOST_SEEDS, hint="for example --seeds 7")
        if len(set(self.seeds)) < len(self.seeds):
            raise SpecError(f"seeds {self.seeds} are not distinct numbers", hint="for example --seeds 7")
        for seed in self.seeds:
            check_whole("seed", seed, least=0, hint="for example --seeds 7")
        if (cells := len(self.variants) * len(self.seeds)) > MOST_CASES:
            raise SpecError(
                f"{len(self.variants):,} variants x {len(self.seeds):,} seeds make {cells:,} cells, and one study "
                f"takes {MOST_CASES:,}",
                hint="ask for fewer, or in several studies",
            )
        if not 1 <= self.data_seeds <= len(self.seeds):
            raise SpecError(
                f"data_seeds={self.data_seeds} is no number of subsets that {len(self.seeds)} seeds can take in turn",
                hint=f"--data-seeds {len(self.seeds)} gives every seed one of its own, 1 all the same",
            )
        if self.train_images is not None:
            check_whole("train_images", self.train_images, hint="for example --train-images 2000")
        if self.budget:
            for name in self.budget.exempt:
                if name not in names:
                    raise SpecError(f"the budget exempts {name!r}, which is no variant")
        if self.across is not None and not any(self.across in dict(variant.knobs) for variant in self.variants):
            raise SpecError(
                f"the study is across {self.across!r}, which no variant sets",
                hint='for example across = "b", and knobs = { b = 2 } in a variant',
            )
        for variant in self.variants:
            if variant.against is not None and (variant.against not in names or variant.against == variant.name):
                raise SpecError(
                    f"{variant.name!r} is compared with {variant.against!r}, which is no other variant",
                    hint=f"choose from {', '.join(names)}",
                )
            self.host_of(variant)
            self.recipe_of(variant)

    def data_seed_of(self, seed: int) -> int:
        """What draws the data that one of the study's seeds trains on, alike for every variant."""
        return self.data_seed + self.seeds.index(seed) % self.data_seeds

    def comparisons(self, *, pairs: bool = False) -> list[tuple[str, str]]:
        """Which variant is compared with which: each with its baseline, or all pairs.

        A variant that others are compared with by name (`against`) is a baseline itself, and compared with none.
        """
        names = [variant.name for variant in self.variants]
        if pairs:
            names.sort(key=lambda name: name != self.baseline)  # so that every pair with the baseline is against it
            return [(other, one) for i, one in enumerate(names) for other in names[i + 1 :]]
        baselines = {self.baseline, *(variant.against for variant in self.variants)}
        return [
            (variant.name, variant.against or self.baseline)
            for variant in self.variants
            if variant.against is not None or variant.name not in baselines
        ]

    @cached_property
    def host_spec(self) -> HostSpec:
        """The host that the text names. Raises what `HostSpec.parse` does."""
        return HostSpec.parse(self.host)

    @cached_property
    def data_spec(self) -> DataSpec:
        """The data that the text names. Raises what `DataSpec.parse` does."""
        return DataSpec.parse(self.data)

    def host_of(self, variant: Variant) -> HostSpec:
        """The host a variant sits in: the study's, with the variant's own knobs."""
        return self.host_spec.with_settings(**dict(variant.knobs))

    def recipe_of(self, variant: Variant) -> Recipe:
        """The recipe a variant trains by: the study's, with what it changes."""
        return self.recipe.with_settings(dict(variant.recipe))

    def with_variants(self, texts: list[str]) -> StudySpec:
        """The same study over other fusions; those the study has already keep its definition, and `across` holds.

        A fusion without attention, or of the user's own, has no budget to set: it is compared as it is, and the
        report shows by how much it differs. The baseline stays if it is still there, else the first is it.
        """
        own = {variant.name: variant for variant in self.variants}
        if self.across:
            variants = crossed(self.variants, self.baseline, self.across, texts)
        else:
            variants = tuple(own[text] if text in own else Variant.of(text) for text in texts)
        names = [variant.name for variant in variants]
        budget = self.budget
        if budget:
            free = [v.name for v in variants if v.name not in own and not _attends(v.fusion_spec.grammar)]
            kept = [name for name in budget.exempt if name in names]
            budget = dataclasses.replace(budget, exempt=tuple(dict.fromkeys([*kept, *free])))
        variants = tuple(v if v.against in names else dataclasses.replace(v, against=None) for v in variants)
        baseline = self.baseline if self.baseline in names else (names or [""])[0]
        return dataclasses.replace(self, variants=variants, baseline=baseline, budget=budget)

    @classmethod
    def from_toml(cls, text: str, source: str = "study") -> StudySpec:
        """Read a study as `to_toml` writes it. Raises `LoadError` for bad TOML, `UnknownKey` or `SpecError`."""
        return _study(toml_fields(text, source))

    def to_toml(self) -> str:
        """The study as TOML; reading it gives an equal study."""
        fields = {name: value for name, value in to_plain(self).items() if name not in unsaid(self)}
        del fields["variants"]
        entries = (to_plain(v) | {"knobs": dict(v.knobs), "recipe": to_plain(dict(v.recipe))} for v in self.variants)
        return toml(fields | {"variant": list(entries)})


def toml_fields(text: str, source: str) -> dict[str, Any]:
    """What a study's TOML says, before it is a study. Raises `LoadError` that names the `source`."""
    try:
        return toml_of(text)
    except Malformed as error:
        raise LoadError(f"{source} {error}", hint=_SHOWN) from error


def first_seeds(name: str, number: int) -> tuple[int, ...]:
    """So many seeds, from 0 on. Raises `SpecError`."""
    check_whole(name, number, most=MOST_SEEDS, hint="for example --seeds 7")
    return tuple(range(number))


def _attends(grammar: Grammar | None) -> bool:
    return grammar is not None and grammar.attends


_SHOWN = "`afftool ablate scale --print` shows how a study is written"


def _study(given: Mapping[str, Any]) -> StudySpec:
    """A study from its TOML: `variant` holds the variants, `seeds` may be their number, much may be left out."""
    refuse_unknown("a study", given, {*field_names(StudySpec), "variant"} - {"variants"})
    fields = {"name": "study", **given}
    entries = fields.pop("variant", [])
    if not isinstance(entries, list):
        raise SpecError(f"a study's variants are tables, each under [[variant]], not {entries!r}", hint=_SHOWN)
    variants = fields["variants"] = tuple(_variant(entry) for entry in entries)
    fields.setdefault("baseline", variants[0].name if variants else "")
    if isinstance(seeds := given.get("seeds"), int) and not isinstance(seeds, bool):
        fields["seeds"] = first_seeds("seeds", seeds)
    if isinstance(settings := given.get("recipe", {}), Mapping):
        if not isinstance(settings.get("name", ""), str):
            raise SpecError(f"a recipe's name is text, not {settings['name']!r}", hint=_SHOWN)
        fields["recipe"] = recipe(settings.get("name", "short"), **{k: v for k, v in settings.items() if k != "name"})
    if isinstance(given.get("budget"), Mapping):
        fields["budget"] = from_user(Budget, given["budget"], "a budget", hint=_SHOWN)
    return from_user(StudySpec, fields, "a study", hint=_SHOWN)


def _variant(entry: Any) -> Variant:
    """A variant from its table: `knobs` and `recipe` are tables in it, a number may stand for text."""
    if not isinstance(entry, Mapping):
        raise SpecError(f"a variant is a table, not {entry!r}", hint=_SHOWN)
    refuse_unknown("a variant", entry, field_names(Variant))
    if "fusion" not in entry:
        raise SpecError("a variant has no fusion", hint='for example fusion = "aff:reduction=2"')
    for key in ("knobs", "recipe"):
        if not isinstance(entry.get(key, {}), Mapping):
            raise SpecError(f"a variant's {key} is a table, not {entry[key]!r}", hint=_SHOWN)
    fields = {"name": entry["fusion"], **entry}
    fields |= {key: str(fields[key]) for key in ("name", "fusion", "draw") if key in fields}
    fields["knobs"] = sorted((key, str(value)) for key, value in entry.get("knobs", {}).items())
    fields["recipe"] = sorted(entry.get("recipe", {}).items())
    return from_user(Variant, fields, "a variant", hint=_SHOWN)


__all__ = ["Budget", "StudySpec", "Variant"]
