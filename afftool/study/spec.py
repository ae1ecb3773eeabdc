"""What an ablation asks: a study (a grid of variants and seeds) and its cells, frozen, valid or not built.

A study is read from TOML and written as TOML; a cell's identity is a hash over everything that changes its result.
Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from afftool.errors import LoadError, SpecError, UnknownKey
from afftool.registry import unknown
from afftool.spec import FusionSpec, HostSpec
from afftool.study import published
from afftool.study.crossing import crossed
from afftool.study.recipe import RECIPES, Recipe, recipe
from afftool.study.variant import Variant


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

    `baseline` is the variant the others are compared with; `published` names the table of the paper to set beside it;
    `signal` adds what the fusions do to the signal at initialisation; `across` is the knob of the host that the fusions
    are crossed with, if any.
    """

    name: str
    variants: tuple[Variant, ...]
    baseline: str
    summary: str = ""
    host: str = "resnet:b=1"
    data: str = "shapes:size=16:train=3200"
    train_images: int | None = None
    data_seed: int = 0
    seeds: tuple[int, ...] = tuple(range(7))
    recipe: Recipe = field(default_factory=Recipe)
    budget: Budget | None = None
    published: str | None = None
    signal: bool = False
    across: str | None = None

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        self._check_types()
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
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise SpecError(f"seeds {self.seeds} are not distinct numbers from 0 up", hint="for example --seeds 7")
        if self.train_images is not None and self.train_images < 1:
            raise SpecError(f"{self.train_images} training images are too few", hint="for example --train-images 2000")
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

    def _check_types(self) -> None:
        """Refuse values of the wrong kind, as a TOML file may hold them."""
        kinds = {"name": str, "summary": str, "host": str, "data": str, "baseline": str, "signal": bool}
        kinds |= {"data_seed": int} | ({} if self.train_images is None else {"train_images": int})
        kinds |= {name: str for name in ("published", "across") if getattr(self, name) is not None}
        for field_name, kind in kinds.items():
            value = getattr(self, field_name)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                words = {str: "text", bool: "true or false", int: "a whole number"}
                raise SpecError(f"a study's {field_name} is {words[kind]}, not {value!r}")
        if self.data_seed < 0:
            raise SpecError(f"data_seed={self.data_seed} is below 0", hint="for example --data-seed 1")

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

    def host_of(self, variant: Variant) -> HostSpec:
        """The host a variant sits in: the study's, with the variant's own knobs."""
        return HostSpec.parse(self.host).with_settings(**dict(variant.knobs))

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
            free = [v.name for v in variants if v.name not in own and not _attends(v.fusion)]
            kept = [name for name in budget.exempt if name in names]
            budget = dataclasses.replace(budget, exempt=tuple(dict.fromkeys([*kept, *free])))
        variants = tuple(v if v.against in names else dataclasses.replace(v, against=None) for v in variants)
        baseline = self.baseline if self.baseline in names else (names or [""])[0]
        return dataclasses.replace(self, variants=variants, baseline=baseline, budget=budget)

    @classmethod
    def from_toml(cls, text: str, source: str = "study") -> StudySpec:
        """Read a study as `to_toml` writes it. Raises `LoadError` for bad TOML, `UnknownKey` or `SpecError`."""
        try:
            given = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise LoadError(
                f"{source} is not TOML: {error}", hint="`afftool ablate scale --print` shows how a study is written"
            ) from error
        try:
            return _study(given)
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, SpecError):
                raise
            raise SpecError(
                f"{source}: {error}", hint="`afftool ablate scale --print` shows how a study is written"
            ) from error

    def to_toml(self) -> str:
        """The study as TOML; reading it gives an equal study."""
        lines = [f"{key} = {_toml(value)}" for key, value in self._plain().items() if value not in (None, "")]
        lines += ["", "[recipe]", f"name = {_toml(self.recipe.name)}"]
        lines += [f"{key} = {_toml(value)}" for key, value in self.recipe.to_dict().items() if key != "name"]
        if self.budget:
            lines += ["", "[budget]", f"tolerance = {_toml(self.budget.tolerance)}"]
            lines += [f"exempt = {_toml(list(self.budget.exempt))}"]
        for variant in self.variants:
            lines += ["", "[[variant]]", f"name = {_toml(variant.name)}", f"fusion = {_toml(variant.fusion)}"]
            lines += [f"knobs = {_toml(dict(variant.knobs))}"] if variant.knobs else []
            lines += [f"recipe = {_toml(dict(variant.recipe))}"] if variant.recipe else []
            lines += [f"draw = {_toml(variant.draw)}"] if variant.draw else []
            lines += [f"against = {_toml(variant.against)}"] if variant.against else []
        return "\n".join(lines) + "\n"

    def _plain(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in _PLAIN} | {"seeds": list(self.seeds)}


_PLAIN = (
    *("name", "summary", "host", "data", "train_images", "data_seed", "seeds", "baseline", "published", "signal"),
    "across",
)


@dataclass(frozen=True, kw_only=True)
class CellSpec:
    """One variant trained with one seed. Two cells with equal fields give equal results, bit for bit on the CPU.

    Texts are in their shortest form. `fingerprint` is the data's, `code` that of modules of the user's own. `threads`,
    `dtype` and `compiled` are how the training runs, because they decide in which order numbers are added; so do
    the release of `torch` and the vector instructions it uses (`capability`, on the CPU). `training` is
    the version of afftool's loop.
    """

    fusion: str
    host: str
    data: str
    fingerprint: str
    train_images: int | None
    data_seed: int
    recipe: Recipe
    seed: int
    draw: str = ""
    device: str = "cpu"
    threads: int = 1
    dtype: str = "float32"
    compiled: bool = False
    torch: str = ""
    capability: str = ""
    training: int = 0
    code: str = ""

    @property
    def identity(self) -> str:
        """A short hash over every field that can change the result; where the data came from cannot."""
        fields = self.to_dict()
        for name in ("data", "train_images", "data_seed"):
            fields.pop(name)
        fields["recipe"] = self.recipe.effective()
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Every field, as JSON takes it."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {"recipe": self.recipe.to_dict()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> CellSpec:
        """The cell back from `to_dict`."""
        settings = dict(fields["recipe"])
        name = settings.pop("name")
        made = dataclasses.replace(RECIPES["short"].with_settings(settings), name=name)
        return cls(**fields | {"recipe": made})


def _attends(fusion: str) -> bool:
    grammar = FusionSpec.parse(fusion).grammar
    return grammar is not None and grammar.attends


def _study(given: dict[str, Any]) -> StudySpec:
    known = {*_PLAIN, "recipe", "budget", "variant"}
    _refuse_unknown("a study", given, known)
    fields: dict[str, Any] = {key: given[key] for key in _PLAIN if key in given}
    seeds = fields.get("seeds")
    if isinstance(seeds, int):
        fields["seeds"] = tuple(range(seeds))
    elif seeds is not None:
        fields["seeds"] = tuple(int(seed) for seed in seeds)
    settings = dict(given.get("recipe", {}))
    fields["recipe"] = recipe(settings.pop("name", "short"), **settings)
    if "budget" in given:
        _refuse_unknown("a budget", given["budget"], {"tolerance", "exempt"})
        fields["budget"] = Budget(
            tolerance=float(given["budget"].get("tolerance", 0.0)), exempt=tuple(given["budget"].get("exempt", ()))
        )
    fields["variants"] = tuple(_variant(entry) for entry in given.get("variant", ()))
    if fields["variants"]:
        fields.setdefault("baseline", fields["variants"][0].name)
    return StudySpec(**{"name": "study", "baseline": "", **fields})


def _variant(entry: dict[str, Any]) -> Variant:
    _refuse_unknown("a variant", entry, {"name", "fusion", "knobs", "recipe", "draw", "against"})
    if "fusion" not in entry:
        raise SpecError("a variant has no fusion", hint='for example fusion = "aff:reduction=2"')
    return Variant(
        name=str(entry.get("name", entry["fusion"])),
        fusion=str(entry["fusion"]),
        knobs=tuple(sorted((key, str(value)) for key, value in entry.get("knobs", {}).items())),
        recipe=tuple(sorted(entry.get("recipe", {}).items())),
        draw=str(entry.get("draw", "")),
        against=entry.get("against"),
    )


def _refuse_unknown(kind: str, given: dict[str, Any], known: set[str]) -> None:
    for key in given:
        if key not in known:
            raise UnknownKey(f"{kind} takes no key {key!r}", hint=unknown("key", key, known).hint)


def _toml(value: Any) -> str:
    """One value as TOML; JSON's strings, numbers and booleans are TOML's too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


__all__ = ["Budget", "CellSpec", "StudySpec", "Variant"]
