"""A git ref beside the user's working tree, which is never touched: a detached worktree in a temporary folder.

The side that stands for the ref has to import the worktree's copy of the project's own packages, never the working
tree's, whether they lie in the current directory, under `src/`, or are installed from the repository in editable mode.
However a check ends, by a signal too, the worktree goes away; after SIGKILL the next one clears it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from afftool.errors import UserError
from afftool.gate.config import GateCase
from afftool.gate.git import git, last_line
from afftool.gate.left_out import fill_submodules
from afftool.imports import AFFTOOL, is_installed
from afftool.interruption import terminations_raise, uninterrupted
from afftool.registry import entry_points, file_of, top_level
from afftool.scratch import is_left, scratch

SOURCES = "src"
"""The folder of a project in which its packages lie, if not in the project's own."""


@dataclass(frozen=True)
class Repository:
    """The git repository that holds the directory the check was started in (`here`)."""

    root: Path
    here: Path

    def resolve(self, ref: str) -> str:
        """The commit that `ref` names. Raises `UserError` if there is none."""
        found = git(self.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if found.returncode:
            shallow = git(self.root, "rev-parse", "--is-shallow-repository").stdout.strip() == "true"
            raise UserError(
                f"git knows no commit {ref!r} here",
                hint="this clone is shallow: fetch more history (GitHub: fetch-depth: 0, GitLab: GIT_DEPTH: 0)"
                if shallow
                else f"`git fetch` it, or look for it with `git log --oneline --all`; the repository is {self.root}",
            )
        return found.stdout.strip()

    @contextmanager
    def worktree(self, commit: str) -> Iterator[Path]:
        """The files of `commit` in a temporary folder, for as long as the block runs.

        Submodules have theirs too. It goes away however the block ends, by Ctrl-C and SIGTERM too, and with the next
        check where this process is killed. Hooks do not run.
        """
        with terminations_raise():
            self._clear_left()
            with scratch() as folder:
                tree = Path(folder) / self.root.name
                try:
                    made = git(
                        self.root, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(tree), commit
                    )
                    if made.returncode:
                        raise UserError(
                            f"git made no worktree of {commit[:12]}: {last_line(made.stderr)}",
                            hint="install git-lfs, which its files need" if "lfs" in made.stderr else None,
                        )
                    fill_submodules(self.root, commit, tree)
                    yield tree
                finally:
                    with uninterrupted():
                        self._remove(tree)

    def _remove(self, tree: Path) -> None:
        """Take a worktree away: its files, and what the user's .git knows of it.

        Files first, changed ones too, since an interrupted `worktree add` may leave a tree that is none yet to git; of
        one that is gone, git then removes the entry, one that is locked while it is made too (`--force` twice).
        """
        shutil.rmtree(tree.parent, ignore_errors=True)
        git(self.root, "worktree", "remove", "--force", "--force", str(tree))

    def _clear_left(self) -> None:
        """Remove the worktrees of checks that were killed, and none of one that runs."""
        for line in git(self.root, "worktree", "list", "--porcelain").stdout.splitlines():
            kind, _, place = line.partition(" ")
            if kind == "worktree" and is_left(Path(place).parent):
                self._remove(Path(place))


def find_repository(directory: Path) -> Repository:
    """The repository around `directory`. Raises `UserError` if there is none or git is missing."""
    if shutil.which("git") is None:
        raise UserError("--against needs git, which is not installed", hint="install git, or use --baseline FILE")
    found = git(directory, "rev-parse", "--show-toplevel")
    if found.returncode:
        raise UserError(
            f"{directory} is not in a git repository: {last_line(found.stderr)}",
            hint="run `afftool check --against` where the code is, or use --baseline FILE",
        )
    return Repository(root=Path(found.stdout.rstrip("\n")).resolve(), here=directory.resolve())


@dataclass(frozen=True)
class ImportPlan:
    """What one side puts first on its path, and the packages that must then come from inside `tree`."""

    paths: tuple[Path, ...]
    packages: tuple[str, ...]
    tree: Path | None = None

    @property
    def own_afftool(self) -> bool:
        """Whether the side runs an afftool of its own, because the repository is that of the afftool that runs."""
        return AFFTOOL.name in self.packages


def targets(cases: Iterable[GateCase]) -> tuple[str, ...]:
    """The top-level packages of the user's own fusions and hosts."""
    added = entry_points("afftool.fusions")
    found: dict[str, None] = {}
    for case in cases:
        for target in case.spec.own_targets:
            path = added.get(target, target)
            if file := file_of(path):
                raise UserError(
                    f"{file} has no name that both sides could import it by",
                    hint="run the check in the folder above it, or rename it, so that pkg.mod:Class names it",
                )
            found[top_level(path)] = None
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
                hint=f"both sides would be the same code: start where {name} or src/{name} lies, set PYTHONPATH to its "
                "folder, or `pip install -e .`; or use --baseline",
            )
    # `here` first, as for a command that is started in it; then where each package really comes from, then whatever
    # else of this process's path lies in the repository, for what those packages import in their turn
    roots = [here, *(origin for name in inside if (origin := _origin(name, here))), *_path_entries(here)]
    paths = [tree / path.relative_to(root) for path in roots if path == root or root in path.parents]
    sources = tree / here.relative_to(root) / SOURCES  # at that commit the package may lie there, and here no more
    paths += [sources] if any(_found_in([sources], name) for name in packages) else []
    return ImportPlan(tuple(dict.fromkeys(path for path in paths if path.is_dir())), tuple(inside), tree)


def plan_here(here: Path, packages: Sequence[str] = ()) -> ImportPlan:
    """How the working tree imports: as a command started in it would, and `packages` that lie under `src/` from there.

    A copy that is installed is behind them: it may be of another day.
    """
    sources = here / SOURCES
    in_sources = any(_origin(name, here) == sources.resolve() for name in packages)
    return ImportPlan((here, sources) if in_sources else (here,), ())


def _path_entries(here: Path) -> list[Path]:
    """Everything on this process's path (PYTHONPATH and editable installs among it), resolved."""
    return [Path(os.path.join(here, entry)).resolve() for entry in sys.path if entry]


def _origin(package: str, here: Path) -> Path | None:
    """The folder that a top-level package is imported from; the package itself is not imported."""
    if package == AFFTOOL.name:  # that which runs, and never one that a folder brings along
        return AFFTOOL.resolve().parent
    spec = _found_in([here, here / SOURCES], package)
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


def _found_in(folders: Sequence[Path], package: str) -> importlib.machinery.ModuleSpec | None:
    return importlib.machinery.PathFinder.find_spec(package, [str(folder) for folder in folders])


def _is_inside(path: Path | None, root: Path) -> bool:
    return path is not None and (path == root or root in path.parents) and not is_installed(path)
