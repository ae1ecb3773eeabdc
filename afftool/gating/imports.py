"""Where a project's own packages are imported from, and where the same ones are in a worktree of it.

A package may lie in the current directory, under `src/`, or be installed from the repository in editable mode; in
every case the side that stands for the git ref has to import the worktree's copy, never the working tree's.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from afftool.errors import UserError
from afftool.gating.config import GateCase
from afftool.registry import entry_points


@dataclass(frozen=True)
class ImportPlan:
    """What one side puts first on its path, and the packages that must then come from inside `tree`."""

    paths: tuple[Path, ...]
    packages: tuple[str, ...]
    tree: Path | None = None


def targets(cases: Iterable[GateCase]) -> tuple[str, ...]:
    """The top-level packages of the user's own fusions and hosts."""
    added = entry_points("afftool.fusions")
    found: dict[str, None] = {}
    for case in cases:
        for target in (case.spec.fusion.target, case.spec.host.target):
            if target is not None:
                path = added.get(target, target)
                found[path.partition(":")[0].partition(".")[0]] = None
    return tuple(found)


def plan_worktree(packages: Sequence[str], root: Path, here: Path, tree: Path) -> ImportPlan:
    """How the worktree `tree` of the repository at `root` imports what `here` would import from `root`.

    Raises `UserError` where a package exists only outside the repository: a ref of it would say nothing.
    """
    inside = [name for name in (*packages, "afftool") if _is_inside(_origin(name, here), root)]
    for name in packages:
        origin = _origin(name, here)
        if origin is not None and name not in inside:
            raise UserError(
                f"{name!r} is imported from {origin}, not from the repository {root}",
                hint="both sides would be the same code; `pip install -e .` installs it from here, or use --baseline",
            )
    roots = [here, *(origin for name in inside if (origin := _origin(name, here))), *_path_entries(here)]
    paths = [tree / path.relative_to(root) for path in roots if path == root or root in path.parents]
    return ImportPlan(tuple(dict.fromkeys(path for path in paths if path.is_dir())), tuple(inside), tree)


def plan_here(here: Path) -> ImportPlan:
    """How the working tree imports: as a command started in it would."""
    return ImportPlan((here,), ())


def _path_entries(here: Path) -> list[Path]:
    """Everything on this process's path (PYTHONPATH and editable installs among it), resolved."""
    return [Path(os.path.join(here, entry)).resolve() for entry in sys.path if entry]


def _origin(package: str, here: Path) -> Path | None:
    """The folder that a top-level package is imported from; the package itself is not imported."""
    spec = importlib.machinery.PathFinder.find_spec(package, [str(here)])
    if spec is None:
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            return None
    if spec is None:
        return None
    locations = list(spec.submodule_search_locations or [])
    file = Path(locations[0]) if locations else Path(spec.origin) if spec.origin else None
    return None if file is None else file.resolve().parent


def _is_inside(path: Path | None, root: Path) -> bool:
    return path is not None and (path == root or root in path.parents) and not _is_environment(path)


def _is_environment(path: Path) -> bool:
    """Whether a path belongs to installed packages: a virtual environment may lie inside the repository."""
    return "site-packages" in path.parts or "dist-packages" in path.parts
