"""Nothing outlives a command that was killed: no process that it started, and, after the next command, no file."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from afftool import scratch
from afftool.errors import UserError
from afftool.gate.left_out import pointers_note
from afftool.gate.worktree import find_repository
from afftool.profile.plugin import check_port, only_by_own_name

PATIENCE_S = 60
HANGS = """
import re, subprocess
from afftool.process import serve


def hang():
    helper = subprocess.Popen(["sleep", "600"])
    print(helper.pid, flush=True)
    re.match("(a+)+$", "a" * 60 + "b")  # in C, and no thread of Python's runs meanwhile


serve({"hang": hang})
"""
ASKS = """
import os, time
from afftool.process import Child
child = Child("hangs", environment={"PYTHONPATH": os.environ["HERE"] + os.pathsep + os.environ.get("PYTHONPATH", "")})
child.send("hang")
print(child.pid, flush=True)
time.sleep(600)
"""
WORKS = """
import os, re, subprocess, time
from pathlib import Path
from afftool.study.engines import local


def answers(device):
    helper = subprocess.Popen(["sleep", "600"])
    Path(device).write_text(f"{os.getpid()} {helper.pid} ")
    re.match("(a+)+$", "a" * 60 + "b")


local.answers = answers  # what runs first in a worker
if __name__ == "__main__":
    stopped, kept = [local._Worker(name, {}, Path(".")) for name in ("stopped", "kept")]
    while not os.path.exists("stopped"):
        time.sleep(0.05)
    time.sleep(0.1)
    stopped.stop()
    print("ready", flush=True)
    time.sleep(600)
"""
HOLDS = """
import sys, time
from pathlib import Path
from afftool.gate.worktree import find_repository
found = find_repository(Path.cwd())
with found.worktree(found.resolve("HEAD")) as tree:
    print(tree, flush=True)
    time.sleep(float(sys.argv[1]))
"""
SHOWS = """
import sys, time
from pathlib import Path
from afftool.profile.plugin import tensorboard
with tensorboard(Path("log")) as address:
    print(address, flush=True)
    time.sleep(600)
"""


def git(folder: Path, *arguments: str) -> str:
    own = ["-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "protocol.file.allow=always"]
    return subprocess.run(["git", *own, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path, words: str = "one") -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", words)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "gates.py").write_text("value = 1\n")
    commit(folder)
    return folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the test's own, for it and what it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python with a script and words, in a folder; all of it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def _start(script: str, *words: str, folder: Path = tmp_path, **variables: str) -> subprocess.Popen[str]:
        file = tmp_path / f"script_{len(started)}.py"
        file.write_text(script)
        command = [sys.executable, str(file), *words]
        started.append(
            subprocess.Popen(command, cwd=folder, env=os.environ | variables, stdout=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield _start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def gone(pid: int) -> bool:
    """Whether a process ends in time; one that nobody waits for may stay as a zombie."""
    return within(lambda: not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text())


def within(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            if true():
                return True
        except OSError:  # it went between two looks
            continue
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_module_that_hangs_in_c_ends_with_the_parent_and_so_does_what_it_has_started(
    tmp_path: Path, start: Callable[..., Any], number: signal.Signals
) -> None:
    (tmp_path / "hangs.py").write_text(
        HANGS.replace("print(helper.pid, flush=True)", "told(helper.pid)").replace(
            "def hang", "def told(pid):\n    open('told', 'w').write(str(pid) + ' ')\n\n\ndef hang"
        )
    )
    parent = start(ASKS, HERE=str(tmp_path))
    child = int(said(parent))
    told = tmp_path / "told"
    assert within(lambda: told.exists() and told.read_text().endswith(" "))
    parent.send_signal(number)
    assert gone(child)
    assert gone(int(told.read_text()))


@pytest.mark.long
def test_a_worker_of_a_study_that_hangs_in_c_ends_with_the_parent_or_when_stopped_and_so_does_what_it_has_started(
    tmp_path: Path, start: Callable[..., Any]
) -> None:
    parent = start(WORKS)
    assert said(parent) == "ready"
    for name in ("stopped", "kept"):
        told = tmp_path / name
        assert within(lambda told=told: told.read_text().endswith(" "))
        if name == "kept":
            parent.kill()
        assert all(gone(int(pid)) for pid in told.read_text().split())


def test_the_worktree_of_a_check_that_was_killed_goes_with_the_next_check_and_none_of_one_that_runs(
    repository: Path, temporary: Path, start: Callable[..., Any]
) -> None:
    killed, running = start(HOLDS, "600", folder=repository), start(HOLDS, "600", folder=repository)
    left, alive = Path(said(killed)), Path(said(running))
    killed.kill()
    killed.wait()
    (repository / "own").mkdir()
    git(repository, "worktree", "add", "--quiet", "--detach", str(temporary / "afftool-mine"))
    assert left.is_dir()
    found = find_repository(repository)
    with found.worktree(found.resolve("HEAD")):
        assert not left.parent.exists()
        assert (alive / "gates.py").is_file()
    listed = git(repository, "worktree", "list", "--porcelain")
    assert [line.split()[1] for line in listed.splitlines() if line.startswith("worktree")] == [
        str(repository), str(alive), str(temporary / "afftool-mine"),
    ]  # fmt: skip


def test_a_worktree_whose_files_are_gone_already_leaves_no_entry(repository: Path, temporary: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    place = temporary / f"afftool-{int(dead.stdout)}-abc" / "project"
    place.parent.mkdir()
    git(repository, "worktree", "add", "--quiet", "--detach", str(place))
    git(repository, "worktree", "lock", "--reason", "initializing", str(place))
    scratch.clear_left()
    assert list(temporary.iterdir()) == []
    found = find_repository(repository)
    with found.worktree(found.resolve("HEAD")):
        pass
    assert git(repository, "worktree", "list").count("\n") == 1


SCRATCH = """
import time
from afftool.scratch import scratch
with scratch() as folder:
    open(folder + "/half.cpp", "w").close()
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_had_in_the_temporary_folder_goes_with_the_next_and_nothing_else_does(
    temporary: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    killed, running = start(SCRATCH), start(SCRATCH)
    left, alive = Path(said(killed)), Path(said(running))
    killed.kill()
    killed.wait()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "kept.txt").touch()
    link = left.with_name(left.name + "x")
    link.symlink_to(precious)
    for name in ("afftool-notes", "afftool-2-", left.name + ".txt", "other"):
        (temporary / name).mkdir()
    kept = {path for path in temporary.iterdir() if path != left}
    with scratch.scratch() as own:
        assert set(temporary.iterdir()) == kept | {Path(own)}
    assert (alive / "half.cpp").is_file()
    assert (precious / "kept.txt").is_file()


def test_a_folder_that_another_container_s_process_holds_is_not_left(temporary: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    folder = temporary / f"afftool-{int(dead.stdout)}-abc"
    folder.mkdir()
    held = scratch._lock(folder)
    assert not scratch.is_left(folder)
    assert held is not None
    os.close(held)
    assert scratch.is_left(folder)


def test_tensorboard_answers_to_this_machine_s_names_alone_and_ends_with_a_parent_that_is_killed(
    temporary: Path, tmp_path: Path, start: Callable[..., Any]
) -> None:
    pytest.importorskip("torch_tb_profiler")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "afftool.pt.trace.json").write_text('{"traceEvents": []}')
    parent = start(SHOWS)
    address, _, port = said(parent).removeprefix("http://").partition("/")[0].partition(":")
    assert address == "127.0.0.1"

    def status(host: str) -> int:
        asked = http.client.HTTPConnection(address, int(port), timeout=PATIENCE_S)
        asked.putrequest("GET", "/data/environment", skip_host=True)
        asked.putheader("Host", host)
        asked.endheaders()
        return asked.getresponse().status

    assert [status(host) for host in (f"127.0.0.1:{port}", "localhost:6006", "evil.example", "[", "")] == [
        200, 200, 403, 403, 403,
    ]  # fmt: skip
    with pytest.raises(UserError, match=f"port {port} cannot be had: Address already in use"):
        check_port(int(port))
    parent.kill()
    parent.wait()

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((address, int(port))) != 0

    assert within(refused)
    assert len(list(temporary.iterdir())) == 1
    scratch.clear_left()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:80", "[::1]:6006", "LOCALHOST"])
def test_a_name_of_this_machine_is_answered(host: str) -> None:
    assert only_by_own_name(lambda environ, start: [b"page"])({"HTTP_HOST": host}, None) == [b"page"]


def test_a_port_that_is_taken_is_refused_before_anything_is_profiled(place: Any, refuses: Callable[..., str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        told = refuses(2, "profile", "add", "-c", "4", "-s", "4", "--open", "--port", port)
    assert f"port {port} cannot be had: Address already in use" in told
    assert "another --port" in told


@pytest.fixture
def nested(repository: Path, tmp_path: Path) -> Path:
    """The repository with a submodule that has one itself, each a commit further by now."""
    for name, holds in (("inner", None), ("outer", "inner")):
        folder = tmp_path / name
        folder.mkdir()
        git(folder, "init", "--quiet", "--initial-branch=main")
        (folder / "__init__.py").write_text("value = 'first'\n")
        if holds:
            git(folder, "submodule", "--quiet", "add", str(tmp_path / holds), holds)
        commit(folder)
    git(repository, "submodule", "--quiet", "add", str(tmp_path / "outer"), "outer")
    git(repository, "submodule", "--quiet", "update", "--init", "--recursive")
    commit(repository, "submodules")
    for folder in (repository / "outer" / "inner", repository / "outer", repository):
        (folder / "__init__.py").write_text("value = 'second'\n")
        commit(folder, "second")
    return repository


def test_submodules_are_in_the_worktree_as_its_commit_has_them(nested: Path) -> None:
    before = git(nested, "status", "--porcelain=v2"), git(nested / "outer", "status", "--porcelain=v2")
    found = find_repository(nested)
    with found.worktree(found.resolve("HEAD~1")) as tree:
        assert (tree / "outer" / "__init__.py").read_text() == "value = 'first'\n"
        assert (tree / "outer" / "inner" / "__init__.py").read_text() == "value = 'first'\n"
    with found.worktree(found.resolve("HEAD")) as tree:
        assert (tree / "outer" / "inner" / "__init__.py").read_text() == "value = 'second'\n"
    assert not tree.parent.exists()
    assert (git(nested, "status", "--porcelain=v2"), git(nested / "outer", "status", "--porcelain=v2")) == before


def test_a_submodule_without_the_commit_is_told_and_one_that_is_nowhere_is_left_empty(nested: Path) -> None:
    found, head = find_repository(nested), git(nested, "rev-parse", "HEAD:outer").strip()
    fresh = nested.parent / "fresh"
    git(nested.parent, "clone", "--quiet", str(nested), "fresh")
    other = find_repository(fresh)
    with other.worktree(other.resolve("HEAD")) as tree:
        assert list((tree / "outer").iterdir()) == []
    git(fresh, "clone", "--quiet", str(nested.parent / "outer"), "outer")  # where the second commit was never pushed
    with pytest.raises(UserError, match=f"the submodule outer has no commit {head[:12]}") as told:
        other.worktree(found.resolve("HEAD")).__enter__()
    assert "git -C outer fetch" in str(told.value.hint)
    assert git(fresh, "worktree", "list").count("\n") == 1


def test_a_file_that_is_but_a_pointer_of_git_lfs_at_the_commit_is_told(repository: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3\n"
    for name in ("weights.bin", "both.bin"):
        (repository / name).write_text(pointer)
    (repository / "docs.md").write_text("A pointer begins so:\n" + pointer)
    commit(repository, "pointers")
    (repository / "weights.bin").write_bytes(b"\x00" * 2000)
    found = find_repository(repository)
    with found.worktree(found.resolve("HEAD")) as tree:
        (note,) = pointers_note(repository, tree)
    assert note.startswith("weights.bin is a pointer of Git LFS at that commit and whole here")
    assert "git lfs install" in note


def test_a_filter_that_is_missing_is_an_error_that_names_it(repository: Path, temporary: Path) -> None:
    (repository / ".gitattributes").write_text("*.bin filter=lfs\n")
    (repository / "weights.bin").write_text("pointer\n")
    commit(repository, "attributes")
    git(repository, "config", "filter.lfs.smudge", "git-lfs-that-is-not-installed smudge -- %f")
    git(repository, "config", "filter.lfs.required", "true")
    found = find_repository(repository)
    with pytest.raises(UserError, match=r"git made no worktree of .*lfs") as told:
        found.worktree(found.resolve("HEAD")).__enter__()
    assert told.value.hint == "install git-lfs, which its files need"
    assert list(temporary.iterdir()) == []
    assert git(repository, "worktree", "list").count("\n") == 1
