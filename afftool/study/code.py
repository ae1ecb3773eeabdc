"""The source files behind a fusion or a host of the user's own: what a changed result may come from."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from afftool import registry

_AFFTOOL = Path(__file__).parents[1]
_LIBRARY = Path(sysconfig.get_path("stdlib"))


def own_modules(targets: Iterable[str]) -> dict[str, tuple[Path, ...]]:
    """Top-level module -> its files, for the modules of `targets` (`pkg.mod:Name`) and those of the user's own that
    they import. A package comes with all of its files; what is installed in an environment is left out."""
    found: dict[str, tuple[Path, ...]] = {}
    waiting = []
    for target in targets:
        registry.load(target)
        waiting.append(target.partition(":")[0].partition(".")[0])
    while waiting:
        name = waiting.pop()
        if name not in found and (files := tuple(_own_files(name))):
            found[name] = files
            waiting += [imported for file in files for imported in _imports(file)]
    return dict(sorted(found.items()))


def code_of(*targets: str | None) -> str:
    """A hash over the names of the targets and all of their own sources; "" where there is no target."""
    own = [target for target in targets if target]
    digest = hashlib.sha256()
    for target in own:
        digest.update(target.encode())
    for name, files in own_modules(own).items():
        for file in files:
            digest.update(b"\0" + f"{name}/{file.name}".encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16] if own else ""


def _own_files(name: str) -> Iterator[Path]:
    module = sys.modules.get(name)
    folders = [Path(folder) for folder in getattr(module, "__path__", ())]
    file = getattr(module, "__file__", None)
    files = [path for folder in folders for path in sorted(folder.rglob("*.py"))] if folders else [Path(file or "")]
    return (path for path in files if path.suffix == ".py" and path.is_file() and _is_own(path.absolute()))


def _is_own(path: Path) -> bool:
    installed = "site-packages" in path.parts or "dist-packages" in path.parts
    return not installed and not path.is_relative_to(_LIBRARY) and not path.is_relative_to(_AFFTOOL)


def _imports(file: Path) -> list[str]:
    """The top-level modules that a source file imports, anywhere in it; relative ones lie in its own package."""
    found = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return [name.partition(".")[0] for name in found]
