"""A fusion by name: a preset of the catalog with some settings changed, or a module of the user's own."""

from __future__ import annotations

import dataclasses
import re
import reprlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_type_hints

from afftool import catalog
from afftool.errors import SpecError
from afftool.registry import entry_points, module_form, unknown
from afftool.spec.formula import check_formulas
from afftool.spec.grammar import MOST_PARTS, Grammar, Scale
from afftool.spec.maps import MapText, read_maps
from afftool.spec.text import name_and_options, read_setting, show, unknown_key, write_text

Call = Literal["each", "list"]
"""How a module is given its maps: one argument each, or all in one list."""


@dataclass(frozen=True, kw_only=True)
class FusionSpec:
    """A fusion by name: a point of the grammar, or a module of the user's own (`target`) with its options."""

    name: str
    grammar: Grammar | None = None
    target: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        ndim = dict(self.options).get("ndim", "2")
        if ndim not in ("1", "2", "3"):
            raise SpecError(f"ndim={ndim} is not allowed", hint="maps have 1, 2 or 3 spatial dimensions")
        for key, value in self.options:
            check_formulas(key, value)
        told = self._told_inputs
        if told is not None and not 1 <= told <= MOST_PARTS:
            raise SpecError(
                f"inputs={reprlib.repr(told)} is not allowed", hint=f"a fusion is given 1 to {MOST_PARTS} maps"
            )
        if told is not None and self.maps is not None and told != len(self.maps):
            raise SpecError(
                f"{self.text} tells {len(self.maps)} maps and inputs={told}", hint="leave inputs out: maps says it"
            )

    @classmethod
    def parse(cls, text: str) -> FusionSpec:
        """Read `name[:key=value]...`. Raises `UnknownName`, `UnknownKey` or `SpecError`."""
        name, options = name_and_options(text, "fusion", catalog.FUSIONS)
        if name == catalog.ORIGINAL and not options:
            return cls(name=name)
        if ":" in name:
            name = module_form(name)
            return cls(name=name, target=name, options=tuple(sorted(options.items())))
        if name not in catalog.FUSIONS:
            added = entry_points("afftool.fusions")
            if name not in added:
                raise unknown("fusion", name, [*catalog.FUSIONS, *added])
            return cls(name=name, target=added[name], options=tuple(sorted(options.items())))
        settings: dict[str, Any] = dict(catalog.FUSIONS[name].settings)
        hints = get_type_hints(Grammar)
        for key, value in options.items():
            if key not in hints:
                raise unknown_key(name, key, hints)
            settings[key] = _read_scales(value) if key == "scales" else read_setting(key, value, hints[key])
        return cls(name=name, grammar=Grammar(**settings))

    def with_settings(self, **settings: object) -> FusionSpec:
        """This fusion with some settings changed: fields of the grammar, or a user's module's own keys.

        Raises `UnknownKey` or `SpecError`.
        """
        if self.original:
            return self
        if self.grammar is None:
            options = {**dict(self.options), **{key: show(value) for key, value in settings.items()}}
            return dataclasses.replace(self, options=tuple(sorted(options.items())))
        known = [f.name for f in dataclasses.fields(Grammar)]
        for key in settings:
            if key not in known:
                raise unknown_key(self.name, key, known)
        return dataclasses.replace(self, grammar=dataclasses.replace(self.grammar, **settings))  # type: ignore[arg-type]

    def of_maps(self, inputs: int, ndim: int) -> FusionSpec:
        """This fusion for so many maps of so many dimensions. Raises `SpecError` where there is none."""
        settings = settings_of_maps(inputs, ndim)
        return self.with_settings(**settings) if settings else self

    @property
    def original(self) -> bool:
        """Whether it is none: what a network joins by itself, where fusions could be grafted."""
        return self.name == catalog.ORIGINAL

    @property
    def text(self) -> str:
        """The shortest text that parses to this spec; equal specs have equal texts."""
        if self.grammar is None:
            return write_text(self.name, self.options)
        preset = Grammar(**catalog.FUSIONS[self.name].settings)  # type: ignore[arg-type]
        settings = [(f.name, getattr(self.grammar, f.name)) for f in dataclasses.fields(Grammar)]
        return write_text(self.name, [(name, value) for name, value in settings if value != getattr(preset, name)])

    def __str__(self) -> str:
        return self.text

    @property
    def ndim(self) -> int:
        """Spatial dimensions of the maps it fuses."""
        return self.grammar.ndim if self.grammar else int(dict(self.options).get("ndim", 2))

    @property
    def inputs(self) -> int:
        """How many feature maps it fuses; a module of the user's own takes two where its text says nothing else."""
        if self.grammar:
            return self.grammar.inputs
        return len(self.maps) if self.maps else self._told_inputs or 2

    @property
    def tells_inputs(self) -> bool:
        """Whether the text of a module of the user's own says how many maps it takes."""
        return self.maps is not None or self._told_inputs is not None

    @cached_property
    def maps(self) -> tuple[MapText, ...] | None:
        """The maps that a module of the user's own is given, where its text tells them."""
        return read_maps(dict(self.options).get("maps", ""))

    @property
    def call(self) -> Call | None:
        """How a module of the user's own is given its maps, where its text says so."""
        told = dict(self.options).get("call")
        return "each" if told == "each" else "list" if told == "list" else None

    def map_shapes(self, channels: int, size: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """`(channels, *size)` of each map it fuses, in a case of these channels and this size. Raises `SpecError`."""
        if self.maps is None:
            return ((channels, *size),) * self.inputs
        return tuple(one.shape(channels, size) for one in self.maps)

    @property
    def uneven(self) -> bool:
        """Whether the maps it fuses differ in channels or size, so that nothing else can fuse them for comparison."""
        return len(set(self.maps or ())) > 1

    def hint_on(self, failure: str) -> str | None:
        """What to tell of its maps where its forward fails with these words of torch's or Python's, if that may be why.

        None for what is no module of the user's own.
        """
        if self.target is None:
            return None
        if _NO_LIST.search(failure):
            return f"if it takes one map and no list of them, say {self.with_settings(inputs=1)}"
        if self.maps is None and self.inputs > 1 and _NO_FIT.search(failure):
            maps = "+".join(["c@s", "2c@s/2", *["4c@s/4"] * (self.inputs - 2)])  # it says how many there are
            others = tuple(option for option in self.options if option[0] != "inputs")
            told = dataclasses.replace(self, options=others).with_settings(maps=maps)
            return (
                f"if its maps differ in channels or size, tell them, as --fusion {told} (c channels at size s, 2c at "
                "half of it); a host fuses maps of one shape only"
            )
        return None

    @property
    def _told_inputs(self) -> int | None:
        """The key `inputs`; another value than a whole number is a module's own affair."""
        told = dict(self.options).get("inputs", "")
        return int(told) if told.isdecimal() else None


def settings_of_maps(inputs: int, ndim: int) -> dict[str, int]:
    """The settings of a fusion of so many maps of so many dimensions; none for two of two, which every fusion takes."""
    settings = {"ndim": ndim, "inputs": inputs}
    return {name: value for name, value in settings.items() if value != 2}


_NO_LIST = re.compile(
    r"'(list|tuple)' object|not (list|tuple)\b|(list|tuple) indices|\(list,|found type list", re.IGNORECASE
)
_NO_FIT = re.compile(
    r"expected input\b|must match the (existing )?size|cannot be multiplied|sizes of tensors must match|"
    r"normalized_shape|expected .* channels|running_mean should contain|is invalid for input of size|shape mismatch",
    re.IGNORECASE,
)


def _read_scales(value: str) -> tuple[Scale, ...]:
    """Scales from `local+4+global`."""
    return tuple(int(part) if part.isdecimal() else part for part in value.split("+"))
