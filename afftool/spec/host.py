"""A host by name: its knobs, read and checked against what the catalog says of them, or a network to graft into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from afftool import catalog
from afftool.errors import SpecError
from afftool.registry import module_form, unknown
from afftool.spec.amounts import check_whole
from afftool.spec.graft import DEFAULT_SIZES, KEYS, PREFIX, Graft
from afftool.spec.text import name_and_options, parse_stages, read_number, show, show_size, unknown_key, write_text


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    """A host by name, with all its knobs filled in; `target` is set for a callable of the user's own.

    `graft` is set for a network of the user's own that takes no fusions and is given them.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    target: str | None = None

    @classmethod
    def parse(cls, text: str) -> HostSpec:
        """Read `name[:key=value]...` or `graft:pkg.mod:name[:key=value]...`.

        Raises `UnknownName`, `UnknownKey` or `SpecError`.
        """
        if text.strip().startswith(PREFIX):
            return cls.grafted(text.strip().removeprefix(PREFIX))
        name, given = name_and_options(text, "host", catalog.HOSTS)
        if ":" not in name and name not in catalog.HOSTS:
            raise unknown("host", name, catalog.HOSTS)
        return cls._of(module_form(name) if ":" in name else name, given)

    @classmethod
    def grafted(cls, text: str) -> HostSpec:
        """A network of the user's own to graft fusions into, `pkg.mod:name[:key=value]...`. Raises `SpecError`."""
        name, given = name_and_options(text, "network", ())
        if ":" not in name:
            raise SpecError(
                f"{name!r} names no network",
                hint="a network is written pkg.mod:build or path/file.py:build, as torchvision.models:resnet50",
            )
        return cls._of(PREFIX + module_form(name), given)

    @classmethod
    def _of(cls, name: str, given: Mapping[str, str]) -> HostSpec:
        if name.startswith(PREFIX):
            Graft.read(given)  # refused now, where it is not valid
            return cls(name=name, target=name.removeprefix(PREFIX), options=tuple(sorted(given.items())))
        if ":" in name:
            return cls(name=name, target=name, options=tuple(sorted(given.items())))
        knobs = catalog.HOSTS[name].knobs
        for key in given:
            if key not in knobs:
                raise unknown_key(name, key, knobs)
        options = {key: read_knob(key, given.get(key, knob.default), knob) for key, knob in knobs.items()}
        for key, knob in knobs.items():
            if knob.highest and max(options[key], default=0) > knob.highest:
                raise SpecError(
                    f"{name} has no stage {max(options[key])}: its stages are 1 to {knob.highest}",
                    hint=f"for example {key}={knob.default}, or {key}=none to fuse nowhere",
                )
        return cls(name=name, options=tuple(options.items()))

    @cached_property
    def graft(self) -> Graft | None:
        """What the text says of the graft; None for a host that is built around its fusions."""
        return Graft.read(dict(self.options)) if self.name.startswith(PREFIX) else None

    @property
    def own_options(self) -> dict[str, str]:
        """The keys that a callable of the user's own is called with."""
        return {key: value for key, value in self.options if self.graft is None or key not in KEYS}

    @property
    def size(self) -> str | None:
        """The size of image it is looked at with where none is asked for; None where nothing says one."""
        if self.graft is not None:
            return show_size(self.graft.size or DEFAULT_SIZES)
        known = catalog.HOSTS.get(self.name)
        return str(known.size) if known else None

    @property
    def ndim(self) -> int | None:
        """Dimensions of the maps in it; None for the bare fusion, which has those of the fusion."""
        if self.name == "module":
            return None
        return len(self.graft.size) if self.graft is not None and self.graft.size else 2

    def ndim_of(self, size: str) -> int | None:
        """Dimensions of an image of this size, in text: a grafted network is given what is asked for."""
        return self.ndim if self.graft is None or "x" not in size.lower() else len(size.split("x"))

    def with_settings(self, **settings: object) -> HostSpec:
        """This host with some of its knobs set, to values or to their texts. Raises `UnknownKey` or `SpecError`."""
        given = {key: show(value) for key, value in (dict(self.options) | settings).items()}
        return self._of(self.name, given)

    @property
    def changed(self) -> dict[str, Any]:
        """The knobs that differ from their defaults; of a callable of the user's own, all that are given."""
        if self.target:
            return dict(self.options)
        knobs = catalog.HOSTS[self.name].knobs
        return {key: value for key, value in self.options if value != read_knob(key, knobs[key].default, knobs[key])}

    @property
    def text(self) -> str:
        """The shortest text that parses to this spec."""
        return write_text(self.name, self.changed.items())

    def __str__(self) -> str:
        return self.text

    @property
    def scenario(self) -> str | None:
        """What its fusions join, in the paper's words; None where the catalog does not know."""
        if self.graft is not None:
            told = self.graft.selection.scenarios
            return told[0] if len(told) == 1 else None
        known = catalog.HOSTS.get(self.name)
        return known.scenario if known else None


MOST_KNOB = 32_768
"""Of blocks, widths, groups, classes and images: what a host can be built of, and more than a data set is made of."""
MODULE = HostSpec(name="module")
"""No host at all: the bare fusion."""


def read_knob(key: str, value: str, knob: catalog.Knob) -> Any:
    """A knob from its text: a number, stages, or one of its choices. Raises `SpecError`."""
    if knob.kind == "int":
        number = read_number(key, value, int)
        check_whole(f"{key}=", number, most=MOST_KNOB, hint=f"for example {key}=4")
        return number
    if knob.kind == "stages":
        return parse_stages(key, value)
    if value not in (choices := knob.kind.split("|")):
        raise SpecError(f"{key}={value} is not allowed", hint=f"choose from {', '.join(choices)}")
    return value
