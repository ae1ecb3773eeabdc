"""Git, run in a repository of the user's: away from the terminal's Ctrl-C, and from where a hook of git points it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from afftool.interruption import uninterrupted

_PATIENCE_S = 5.0
"""How long an interrupted git may clean up after itself."""


def git(
    directory: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run git in a directory, without a hook's own GIT_DIR and GIT_INDEX_FILE; file names need not be text."""
    own = {key: value for key, value in os.environ.items() if not _redirects(key)}
    with subprocess.Popen(
        ["git", "-C", str(directory), *arguments],
        env=own | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"} | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        start_new_session=True,
    ) as process:
        try:
            out, told = process.communicate()
        except BaseException:  # Ctrl-C reaches only us: without this, git would go on making what we are to remove
            _end(process)
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, told)


def last_line(text: str) -> str:
    """What git said last, which is why it failed."""
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("fatal: ") if lines else "no reason given"


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
