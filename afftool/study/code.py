"""What of the user's own, and of what that builds on, shaped a fusion or a host: why a result may change."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from afftool import registry
from afftool.imports import is_installed, is_own
from afftool.study.opened import Heard, heard, is_data

_COMPILED = (".so", ".pyd")
_COVERED = ("afftool", "torch")
"""Whose version a cell names by itself."""


@dataclass(frozen=True)
class OwnModule:
    """A top-level module: the file, or the folders of a package, that it is; and all source files in them."""

    name: str
    roots: tuple[Path, ...]
    files: tuple[Path, ...]

    def place(self, file: Path) -> str:
        """Where one of its files is in it, wherever it lies itself."""
        root = next(root for root in self.roots if file.is_relative_to(root))
        return (Path(self.name) / file.relative_to(root)).as_posix()


@dataclass(frozen=True)
class Origin:
    """What targets came from: a hash over all that is known of it (`code`), its parts by name, and the unknown."""

    code: str = ""
    modules: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def told(self, name: str) -> str:
        """A sentence for a report: on what it was trusted that nothing has changed."""
        parts = [f"the code of {_listed(self.modules)}" if self.modules else ""]
        parts += [f"{_listed(self.data)}, read while it was built" if self.data else ""]
        parts += [_listed(self.versions)]
        known = "; ".join(filter(None, parts))
        unknown = _listed([*self.unknown, "environment variables", "files that compiled code opens by itself"])
        return (
            f"{name}: its cells are trained again when something of this changes: {known or 'nothing that is known'}. "
            f"Taken on trust: {unknown}."
        )


def own_modules(targets: Iterable[str]) -> list[OwnModule]:
    """The modules of `targets` (`pkg.mod:Name`) and those of the user's own that they import, by name.

    What is installed in an environment is left out.
    """
    return _closure(targets, installed=False)


def code_of(*targets: str | None) -> str:
    """A hash over the targets and all that they are known to come from; "" where there is no target."""
    return origin_of(*targets).code


def origin_of(*targets: str | None) -> Origin:
    """What the targets come from, as far as it is known once they were built under `opened.watched`.

    That is the code of their own packages, installed or not, and of the user's other modules, compiled files too; data
    they opened; and the versions of the installed packages that this code imports.
    """
    own = [target for target in targets if target]
    if not own:
        return Origin()
    modules = _closure(own, installed=True)
    imported = sorted({name for module in modules for file in module.files for name in _imports(file)})
    versions = [found for name in imported if (found := _version(name, modules))]
    told = [heard(module.name) for module in modules]
    data = _data(modules, told)
    digest = hashlib.sha256()
    for target in own:
        digest.update(target.encode())
    for module in modules:
        for file in _counted(module):
            digest.update(b"\0" + module.place(file).encode() + b"\0" + file.read_bytes())
    for part in sorted(f"{place}\0{_content(file)}" for place, file in data) + versions:
        digest.update(b"\0" + part.encode())
    return Origin(
        code=digest.hexdigest()[:16],
        modules=tuple(module.name for module in modules),
        data=tuple(sorted({place for place, _ in data})),
        versions=tuple(versions),
        unknown=_unknown(own, modules, told, imported),
    )


def _closure(targets: Iterable[str], *, installed: bool) -> list[OwnModule]:
    """Own modules by name; with `installed`, those of the targets themselves wherever they lie."""
    found: dict[str, OwnModule | None] = {}  # None for one that is not own: its folder is looked through once too
    named = set()
    waiting = []
    for target in targets:
        registry.load(target)
        named.add(registry.top_level(target))
    waiting += sorted(named)
    while waiting:
        name = waiting.pop()
        anywhere = installed and name in named and name not in _COVERED
        if name in found:
            continue
        found[name] = module = _own_module(name, anywhere=anywhere)
        if module:
            waiting += [imported for file in module.files for imported in _imports(file)]
    return [module for _, module in sorted(found.items()) if module]


def _own_module(name: str, *, anywhere: bool) -> OwnModule | None:
    """None for a module that is not the user's own, or has no source."""
    module = sys.modules.get(name)
    folders = tuple(Path(folder).absolute() for folder in getattr(module, "__path__", ()))
    file = getattr(module, "__file__", None)
    roots = folders or ((Path(file).absolute(),) if file else ())
    sources = [path for root in roots for path in (sorted(root.rglob("*.py")) if folders else [root])]
    own = (path for path in sources if is_own(path) or (anywhere and is_installed(path)))
    files = tuple(path for path in own if path.suffix == ".py" and path.is_file())
    compiled = anywhere and any(path.suffix in _COMPILED for path in roots)
    return OwnModule(name, roots, files) if files or compiled else None


def _counted(module: OwnModule) -> list[Path]:
    """Its sources, and what was compiled of it."""
    compiled = (path for root in module.roots for path in ([root] if root.is_file() else root.rglob("*")))
    return [*module.files, *sorted(path for path in compiled if path.suffix in _COMPILED and path.is_file())]


def _data(modules: Iterable[OwnModule], told: Iterable[Heard]) -> list[tuple[str, Path]]:
    """The files that were read and are no code of the modules, as (where in its module, or its name; path)."""
    code = {file for module in modules for file in module.files}
    own_output = {path for each in told for path in each.written}
    found = []
    for path in {path for each in told for path in each.read} - code - own_output:
        home = next((module for module in modules if any(map(path.is_relative_to, module.roots))), None)
        if path.is_file() and (home or is_data(path)):
            found.append((home.place(path) if home else path.name, path))
    return found


def _content(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _version(name: str, modules: Iterable[OwnModule]) -> str | None:
    """`distribution==version` of an installed module that is counted in no other way."""
    if name in _COVERED or any(module.name == name for module in modules):
        return None
    found = sorted(f"{place}=={metadata.version(place)}" for place in set(_distributions().get(name, ())))
    return ", ".join(found) or None


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _unknown(
    targets: Iterable[str], modules: Iterable[OwnModule], told: Iterable[Heard], imported: Iterable[str]
) -> tuple[str, ...]:
    """What may have shaped the targets and is in no hash."""
    names = {module.name for module in modules}
    tops = set(map(registry.top_level, targets))
    lacking = [f"the code of {top}, which is in no file" for top in sorted(tops - names - {*_COVERED})]
    for name in sorted(set(imported) - names - {*_COVERED, *sys.stdlib_module_names} - {*_distributions()}):
        if name in sys.modules:
            lacking.append(f"{name}, which has no version")
    outputs = sorted({path.name for each in told for path in each.written if is_data(path)})
    lacking += [f"{name}, which it writes itself" for name in outputs]
    return tuple(lacking + sorted({beyond for each in told for beyond in each.beyond}))


def _listed(parts: Iterable[str]) -> str:
    return ", ".join(parts)


_IMPORTERS = ("import_module", "__import__")


def _imports(file: Path) -> list[str]:
    """The top-level modules that a source file imports, anywhere in it; relative ones lie in its own package."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # a template, or of another Python
        return []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(name := node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            found += [name.value] if called in _IMPORTERS and isinstance(name.value, str) else []
    return [name.partition(".")[0] for name in found if not name.startswith(".")]
