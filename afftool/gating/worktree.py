"""A git ref beside the user's working tree, which is never touched: a detached worktree in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from afftool.errors import UserError
from afftool.gating.signals import terminations_raise, uninterrupted

_PATIENCE_S = 5.0
"""How long an interrupted git may clean up after itself."""


@dataclass(frozen=True)
class Repository:
    """The git repository that holds the directory the check was started in (`here`)."""

    root: Path
    here: Path

    def resolve(self, ref: str) -> str:
        """The commit that `ref` names. Raises `UserError` if there is none."""
        found = _git(self.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if found.returncode:
            shallow = _git(self.root, "rev-parse", "--is-shallow-repository").stdout.strip() == "true"
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

        It goes away however the block ends, by Ctrl-C and SIGTERM too. Hooks do not run.
        """
        with terminations_raise():
            folder = Path(tempfile.mkdtemp(prefix="afftool-")).resolve()
            tree = folder / self.root.name
            try:
                made = _git(
                    self.root, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(tree), commit
                )
                if made.returncode:
                    raise UserError(f"git made no worktree of {commit[:12]}: {_last_line(made.stderr)}")
                yield tree
            finally:
                with uninterrupted():
                    _git(self.root, "worktree", "remove", "--force", "--force", str(tree))
                    shutil.rmtree(folder, ignore_errors=True)
                    if _registered(self.root, tree):  # a half-made one that git would not remove, and keeps locked
                        _git(self.root, "worktree", "unlock", str(tree))
                        _git(self.root, "worktree", "prune")


def find_repository(directory: Path) -> Repository:
    """The repository around `directory`. Raises `UserError` if there is none or git is missing."""
    if shutil.which("git") is None:
        raise UserError("--against needs git, which is not installed", hint="install git, or use --baseline FILE")
    found = _git(directory, "rev-parse", "--show-toplevel")
    if found.returncode:
        raise UserError(
            f"{directory} is not in a git repository: {_last_line(found.stderr)}",
            hint="run `afftool check --against` where the code is, or use --baseline FILE",
        )
    return Repository(root=Path(found.stdout.rstrip("\n")).resolve(), here=directory.resolve())


def _git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git away from the terminal's Ctrl-C, and from a hook's own GIT_DIR and GIT_INDEX_FILE."""
    environment = {key: value for key, value in os.environ.items() if not _redirects(key)}
    with subprocess.Popen(
        ["git", "-C", str(directory), *arguments],
        env=environment | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, told = process.communicate()
        except BaseException:
            _end(process)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, told)


def _end(process: subprocess.Popen[str]) -> None:
    """End git and what it started: asked to, it removes what it has half made; after that by force."""
    with uninterrupted(), contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_PATIENCE_S)
        os.killpg(process.pid, signal.SIGKILL)


def _redirects(key: str) -> bool:
    """Whether a variable points git at another repository, index or work tree, as hooks do."""
    return key in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")


def _registered(root: Path, tree: Path) -> bool:
    listed = _git(root, "worktree", "list", "--porcelain").stdout.splitlines()
    return f"worktree {tree}" in listed


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("fatal: ") if lines else "no reason given"
