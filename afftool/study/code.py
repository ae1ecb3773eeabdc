"""The source files behind a fusion or a host of the user's own: what a changed result may come from."""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from afftool import registry

_AFFTOOL = Path(__file__).parents[1]
_LIBRARY = Path(sysconfig.get_path("stdlib"))


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


def own_modules(targets: Iterable[str]) -> list[OwnModule]:
    """The modules of `targets` (`pkg.mod:Name`) and those of the user's own that they import, by name.

    What is installed in an environment is left out.
    """
    found: dict[str, OwnModule] = {}
    waiting = []
    for target in targets:
        registry.load(target)
        waiting.append(registry.top_level(target))
    while waiting:
        name = waiting.pop()
        if name not in found and (module := _own_module(name)):
            found[name] = module
            waiting += [imported for file in module.files for imported in _imports(file)]
    return [found[name] for name in sorted(found)]


def code_of(*targets: str | None) -> str:
    """A hash over the names of the targets and all of their own sources; "" where there is no target."""
    own = [target for target in targets if target]
    digest = hashlib.sha256()
    for target in own:
        digest.update(target.encode())
    for module in own_modules(own):
        for file in module.files:
            digest.update(b"\0" + module.place(file).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16] if own else ""


def _own_module(name: str) -> OwnModule | None:
    """None for a module that is not the user's own, or has no source."""
    module = sys.modules.get(name)
    folders = tuple(Path(folder).absolute() for folder in getattr(module, "__path__", ()))
    file = getattr(module, "__file__", None)
    roots = folders or ((Path(file).absolute(),) if file else ())
    sources = [path for root in roots for path in (sorted(root.rglob("*.py")) if folders else [root])]
    files = tuple(path for path in sources if path.suffix == ".py" and path.is_file() and _is_own(path))
    return OwnModule(name, roots, files) if files else None


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
