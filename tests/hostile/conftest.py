"""What every test of files from elsewhere asks: the command as a user runs it, and that nothing else has changed."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from afftool.cli import main

Snapshot = dict[str, tuple[int, str]]


@dataclass(frozen=True)
class Place:
    """A folder that somebody was sent, and the command run in it in a process of its own."""

    folder: Path

    def run(self, *words: str | Path, timeout_s: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
        """`afftool WORDS` as the installed command starts it, with no bytecode left behind."""
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables}
        return subprocess.run(
            [sys.executable, "-P", "-m", "afftool", *map(str, words)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def content(self) -> Snapshot:
        """Everything below the folder: kind and permissions, and a digest of what it holds or leads to."""
        return {str(path.relative_to(self.folder)): _state(path) for path in sorted(self.folder.rglob("*"))}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty folder to be filled by the test."""
    return Place(tmp_path)


@pytest.fixture
def refuses(place: Place) -> Callable[..., str]:
    """Run a command that must end with this exit code, say so in one error with no traceback, and change nothing."""

    def check(code: int, *words: str | Path, timeout_s: float = 120) -> str:
        before = place.content()
        done = place.run(*words, timeout_s=timeout_s)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert "a bug of ours" not in done.stderr, done.stderr
        assert "error: " in done.stderr, done.stderr
        assert place.content() == before
        return done.stderr

    return check


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """A command in this process, which is quicker, in an empty folder: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["afftool", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err, err
        return int(stop.value.code or 0), out, err

    return run


def _state(path: Path) -> tuple[int, str]:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return mode, os.readlink(path)
    return mode, hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(mode) else ""
