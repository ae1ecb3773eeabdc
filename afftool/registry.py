"""From a name to the object behind it: catalog, entry points and `pkg.mod:Attribute` or `path/file.py:Attribute`.

Nothing is imported until its name is used, and a typo is answered from the names alone.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
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
    name = path.partition(":")[0] if file is None else _loaded_files.get(file) or _name_and_root(file)[0]
    return name.partition(".")[0]


def load(path: str) -> Any:
    """Import `pkg.mod:Attribute`, or `/path/file.py:Attribute`; modules are found from the current directory too.

    Raises `LoadError` if the module cannot be imported or has no such attribute.
    """
    module_name, _, attribute = path.partition(":")
    file = file_of(path)
    if file is not None and not file.is_file():
        raise LoadError(f"there is no file {file}", hint="a fusion or host of a file is written path/file.py:Name")
    try:
        with global_state.kept(path, "on import"):
            if file is None:
                with _importable(os.getcwd(), *_own_root(module_name)):
                    module = importlib.import_module(module_name)
            else:
                module = _import_file(file)
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


_loaded_files: dict[Path, str] = {}
"""The names under which files were imported."""


def _import_file(file: Path) -> ModuleType:
    """The module of a file: of its package where it lies in one, else under a name that is no other module's."""
    name, root = _name_and_root(file)
    if "." not in name:
        module = sys.modules.get(_loaded_files.get(file, "")) or _alone(file)
    else:
        top = name.partition(".")[0]
        here = [Path.cwd() / top, Path.cwd() / f"{top}.py"] if root != Path.cwd() else []
        with _importable(str(root)):
            module = importlib.import_module(name)
        if any(path.exists() for path in here) or not _is_of(module, file):
            raise LoadError(
                f"{file} cannot be imported: {top!r} is another package here",
                hint="rename one of the two, or run afftool in the folder that holds this one",
            )
    _loaded_files[file] = module.__name__
    return module


def _alone(file: Path) -> ModuleType:
    """A module under a name made of its whole path: its own may be that of a neighbour, or of Python's."""
    name = re.sub(r"\W", "_", str(file.with_suffix("")))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _importable(str(file.parent)):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_of(module: ModuleType, file: Path) -> bool:
    own = getattr(module, "__file__", None)
    return own is not None and os.path.realpath(own) == os.path.realpath(file)


def _name_and_root(file: Path) -> tuple[str, Path]:
    """The dotted name of a file in the outermost package around it, and the folder that this lies in."""
    root, parts = file.parent, [file.stem] if file.stem != "__init__" else []
    while (root / "__init__.py").is_file() and root != root.parent:
        parts.append(root.name)
        root = root.parent
    return ".".join(reversed(parts)), root


def _own_root(module_name: str) -> list[str]:
    """The folder below the current directory that a module's neighbours are imported from, if it has a file there."""
    file = Path.cwd().joinpath(*module_name.split(".")).with_suffix(".py")
    root = _name_and_root(file)[1]
    return [str(root)] if file.is_file() and root != Path.cwd() and root.is_relative_to(Path.cwd()) else []


@contextmanager
def _importable(*paths: str) -> Iterator[None]:
    """First on the path while the user's module loads, so that it wins over a stale install; last afterwards."""
    sys.path[:0] = paths
    try:
        yield
    finally:
        for path in paths:
            sys.path.remove(path)
            if path not in sys.path:
                sys.path.append(path)
