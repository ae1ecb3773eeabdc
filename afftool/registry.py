"""From a name to the object behind it: catalog, entry points and `pkg.mod:Attribute` of the user's own.

Nothing is imported until its name is used, and a typo is answered from the names alone.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from afftool import global_state
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


@cache
def entry_points(group: str) -> dict[str, str]:
    """Names that installed packages add, as `{name: "pkg.mod:Attribute"}`."""
    from importlib import metadata

    return {point.name: point.value for point in metadata.entry_points(group=group)}


def need(module: str, extra: str) -> ModuleType:
    """Import what only some features need. Raises `LoadError`, naming the `extra` that brings it, without it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise LoadError(f"this needs {package}: {error}", hint=f"pip install 'afftool[{extra}]'") from error


def load(path: str) -> Any:
    """Import `pkg.mod:Attribute`; modules are found from the current directory too.

    Raises `LoadError` if the module cannot be imported or has no such attribute.
    """
    module_name, _, attribute = path.partition(":")
    try:
        with global_state.kept(path, "on import"), _current_directory_importable():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise LoadError(
                f"no module named {error.name!r} (for {path!r})",
                hint="modules are looked for in the installed packages and in the current directory; cd to its folder",
            ) from error
        raise LoadError(
            f"importing {module_name!r} failed: {error}", hint=f"install {error.name!r} or remove that import"
        ) from error
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


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    """First on the path while the user's module loads, so that it wins over a stale install; last afterwards."""
    path = os.getcwd()
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)
        if path not in sys.path:
            sys.path.append(path)
