"""From a name to the object behind it: catalog, entry points and `pkg.mod:Attribute` or `path/file.py:Attribute`.

Nothing is imported until its name is used, and a typo is answered from the names alone.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from afftool import global_state, imports
from afftool.errors import LoadError, UnknownName


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """The error for a `name` that is not among the `known` ones, with the nearest of them as its hint."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return UnknownName(f"unknown {kind} {name!r}", hint=hint)


def check_names(kind: str, names: Iterable[str], known: Collection[str]) -> None:
    """Refuse the first of `names` that is not among the `known` ones. Raises `UnknownName`."""
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)


class Installed(str):
    """A `pkg.mod:Attribute` that an installed package gave a name to: no folder's module of that name is meant."""


@cache
def entry_points(group: str) -> dict[str, Installed]:
    """Names that installed packages add, as `{name: "pkg.mod:Attribute"}`."""
    from importlib import metadata

    return {point.name: Installed(point.value) for point in metadata.entry_points(group=group)}


def need(module: str, extra: str) -> ModuleType:
    """Import what only some features need.

    Raises `LoadError`, naming the `extra` that brings it, without it, and where a module of the user's has its name.
    """
    package = module.partition(".")[0]
    if own := imports.neighbour(package):
        raise LoadError(
            f"this needs the installed {package}, and your own {own} is imported by that name",
            hint=f"rename {own.name}, or use other data or another engine with it",
        )
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LoadError(f"this needs {package}: {error}", hint=f"pip install 'afftool[{extra}]'") from error


def module_form(name: str) -> str:
    """`pkg.mod:Attribute` for `pkg/mod.py:Attribute`, `./pkg/mod.py:Attribute` and the like, so that one has one name.

    A file outside of the current directory keeps its whole path, and so does one that Python could not import by that
    name (`my-nets/v1.2/mod.py`, or `code.py`, which is Python's own). Only the text is looked at.
    """
    place, colon, attribute = name.partition(":")
    place = place.replace("\\", "/")
    if "/" not in place and not place.endswith(".py"):
        return name
    file = os.path.abspath(os.path.expanduser(place if place.endswith(".py") else f"{place}.py"))
    for whole, here in ((file, os.path.abspath(".")), (os.path.realpath(file), os.path.realpath("."))):
        inside = os.path.relpath(whole, here).removesuffix(".py").split(os.sep)
        if all(map(str.isidentifier, inside)) and inside[0] not in sys.stdlib_module_names:
            return ".".join(inside[:-1] if inside[-1] == "__init__" and inside[1:] else inside) + colon + attribute
    return file.replace(os.sep, "/") + colon + attribute


def file_of(path: str) -> Path | None:
    """The file of a `/path/file.py:Attribute`, as `module_form` leaves it; None for a `pkg.mod:Attribute`."""
    place = path.partition(":")[0]
    return Path(place) if "/" in place else None


def top_level(path: str) -> str:
    """The top-level module or package that a `pkg.mod:Attribute`, or a file that was loaded, belongs to."""
    file = file_of(path)
    name = path.partition(":")[0] if file is None else imports.name_of(file)
    return name.partition(".")[0]


def load(path: str) -> Any:
    """Import `pkg.mod:Attribute`, or `/path/file.py:Attribute`; modules are found from the current directory too.

    That is for what a user names: our own modules and what an installed package named (`Installed`) are never looked
    for there, and `afftool.imports` says how. Raises `LoadError` if the module cannot be imported or has no such
    attribute.
    """
    module_name, _, attribute = path.partition(":")
    file = file_of(path)
    if file is not None and not file.is_file():
        raise LoadError(f"there is no file {file}", hint="a fusion or host of a file is written path/file.py:Name")
    try:
        with global_state.kept(path, "on import"):
            if module_name.partition(".")[0] == imports.AFFTOOL.name:
                module = importlib.import_module(module_name)
            elif file is None:
                module = imports.import_named(module_name, installed=isinstance(path, Installed))
            else:
                module = imports.import_file(file)
                module_name = module.__name__
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise LoadError(
                f"no module named {error.name!r} (for {path!r})",
                hint="modules are looked for in the installed packages and in the current directory, here as "
                f"{module_name.replace('.', '/')}.py; cd to its folder, or name its file, path/file.py:{attribute}; "
                "for a package under src/ `pip install -e .` or set PYTHONPATH=src",
            ) from error
        raise LoadError(
            f"importing {module_name!r} failed: {error}", hint=f"install {error.name!r} or remove that import"
        ) from error
    except LoadError:
        raise
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` may end in one
        raise LoadError(
            f"importing {module_name!r} failed: {type(error).__name__}: {error}",
            hint=f"run `python -c 'import {module_name}'` to see the whole traceback",
        ) from error
    target: Any = module
    for part in attribute.split("."):
        try:
            target = getattr(target, part)
        except AttributeError as error:
            public = [name for name in vars(module) if not name.startswith("_")]
            near = difflib.get_close_matches(part, public, n=1, cutoff=0.5)
            hint = f"did you mean {module_name}:{near[0]}?" if near else None
            raise LoadError(f"module {module_name!r} has no attribute {attribute!r}", hint=hint) from error
    return target
