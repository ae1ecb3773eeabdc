"""What `git worktree add` leaves out of a commit: its submodules, and what Git LFS keeps elsewhere.

The working tree has both, so a side without them would be other code than the commit's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from afftool.errors import UserError
from afftool.gate.git import git, last_line
from afftool.received import LFS_POINTER, is_lfs_pointer

_SUBMODULE = "160000"


def fill_submodules(root: Path, commit: str, tree: Path) -> None:
    """Put the files of a commit's submodules into its worktree, each from the submodule's own clone below `root`.

    One that is checked out nowhere stays empty, as it is here. Raises `UserError` where a clone lacks its commit.
    """
    for path, at in _submodules(root, commit):
        here, there = root / path, tree / path
        inside = here.resolve().is_relative_to(root.resolve()) and there.resolve().is_relative_to(tree.resolve())
        if not inside or not (here / ".git").exists():
            continue
        index = {"GIT_INDEX_FILE": str(tree.parent / f"index-{at}")}
        read = git(here, "read-tree", at, environment=index)
        if read.returncode:
            raise UserError(
                f"the submodule {path} has no commit {at[:12]}, which {commit[:12]} is built on",
                hint=f"`git -C {path} fetch`, or `git submodule update --init --recursive` at that commit",
            )
        written = git(here, "checkout-index", "--all", "--force", f"--prefix={there}/", environment=index)
        if written.returncode:
            raise UserError(f"git wrote no files of the submodule {path}: {last_line(written.stderr)}")
        fill_submodules(here, at, there)


def _submodules(root: Path, commit: str) -> Iterator[tuple[str, str]]:
    """Where each lies, and at which of its own commits."""
    for entry in git(root, "ls-tree", "-r", "-z", "--full-tree", commit).stdout.split("\0"):
        what, _, path = entry.partition("\t")
        if what.startswith(_SUBMODULE):
            yield path, what.split()[2]


def pointers_note(root: Path, tree: Path) -> list[str]:
    """A note on files that are whole in the working tree and no more than Git LFS's pointers in the worktree."""
    listed = git(tree, "grep", "-I", "-l", "-z", "-e", f"^{LFS_POINTER.decode()}$").stdout.split("\0")
    lacking = [name for name in filter(None, listed) if _is_pointer(tree / name) and _is_whole(root / name)]
    if not lacking:
        return []
    several = f" and {len(lacking) - 1} more" if lacking[1:] else ""
    return [
        f"{lacking[0]}{several} is a pointer of Git LFS at that commit and whole here: a module that reads it differs; "
        "`git lfs install` has both sides read the file"
    ]


def _is_pointer(file: Path) -> bool:
    return file.is_file() and not file.is_symlink() and is_lfs_pointer(file)


def _is_whole(file: Path) -> bool:
    return file.is_file() and not is_lfs_pointer(file)
