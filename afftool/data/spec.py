"""Which data is asked for: `NAME[:PATH][:key=value]...`, read without touching the data or importing anything heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass

from afftool import catalog
from afftool.errors import SpecError, UnknownKey
from afftool.registry import unknown
from afftool.spec import parse_size
from afftool.spec.amounts import read_whole


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """A dataset by name, with the path it lies at and the options that were given."""

    name: str
    path: str | None = None
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """Read `NAME[:PATH][:key=value]...`; a colon or an equals sign inside PATH is fine.

        Raises `UnknownName`, `UnknownKey` or `SpecError`, and never looks at the path itself.
        """
        name, *parts = text.strip().split(":")
        if name not in catalog.DATASETS:
            raise unknown("dataset", name, catalog.DATASETS)
        entry = catalog.DATASETS[name]
        options: dict[str, str] = {}
        while parts and (key := parts[-1].partition("=")[0]).isidentifier() and "=" in parts[-1]:
            if key not in entry.knobs:
                if entry.path and len(parts) == 1:
                    break  # a path such as run=3
                near = unknown("key", key, entry.knobs).hint if entry.knobs else None
                raise UnknownKey(f"{name} takes no key {key!r}", hint=near)
            if key in options:
                raise SpecError(f"{key!r} is given twice in {text!r}", hint="keep one of them")
            options[key] = parts.pop().partition("=")[2]
        path = os.path.expanduser(":".join(parts)) or None
        if entry.path and path is None:
            raise SpecError(f"{name} needs a path", hint=f"--data {name}:PATH, where PATH is {entry.path}")
        if path and not entry.path:
            raise SpecError(f"{name} takes no path, and {path!r} was given", hint=f"write --data {name}")
        spec = cls(name=name, path=path, options=tuple(sorted(options.items())))
        for key in entry.knobs:
            spec._check(key)
        return spec

    @property
    def text(self) -> str:
        """The text that parses to this spec."""
        return ":".join([self.name, *([self.path] if self.path else []), *(f"{k}={v}" for k, v in self.options)])

    def __str__(self) -> str:
        return self.text

    @property
    def absolute(self) -> DataSpec:
        """The same data, found from any working directory."""
        local = self.path and (self.name != "hub" or os.path.exists(self.path))
        path = os.path.abspath(self.path) if local and self.path else self.path
        return DataSpec(name=self.name, path=path, options=self.options)

    def option(self, key: str) -> str:
        """The option as given, or its default; "" means that the source finds out."""
        return dict(self.options).get(key, catalog.DATASETS[self.name].knobs[key].default)

    def number(self, key: str) -> int | None:
        """A whole-number option."""
        value = self.option(key)
        return int(value) if value else None

    def size(self) -> tuple[int, int] | None:
        """The `size` option as (height, width), None where images stay as they are."""
        value = self.option("size")
        if not value:
            return None
        height, width = parse_size(value, 2)
        return height, width

    def _check(self, key: str) -> None:
        kind, value = catalog.DATASETS[self.name].knobs[key].kind, self.option(key)
        if not value and key in dict(self.options):
            raise SpecError(f"{key}= is empty", hint=f"{key}=VALUE, or leave it out")
        if kind == "int" and value:
            read_whole(f"{key}=", value, least=int(key != "void"), hint=f"for example {key}=32")
        if kind == "size" and value and min(parse_size(value, 2)) < 1:
            raise SpecError(f"{key}={value} is too small", hint=f"for example {key}=32 or {key}=180x240")
        if "|" in kind and value not in kind.split("|"):
            raise SpecError(f"{key}={value} is not allowed", hint=f"choose from {', '.join(kind.split('|'))}")
