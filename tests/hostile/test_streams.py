"""Where a command prints: a full device, a closed descriptor, a reader that leaves, an alphabet without our letters."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import bench_run, keep

Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(place: Any) -> Shell:
    """A command line of a shell in which AFFTOOL stands for the command."""

    def run(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = f"{shlex.quote(sys.executable)} -P -m afftool"
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line.replace('AFFTOOL', command)}"],
            cwd=place.folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def stored(place: Any) -> Path:
    """A store with one run, whose fusion is named in letters that ASCII lacks."""
    path: Path = place.folder / "runs.sqlite"
    keep(path, replace(bench_run(), command="afftool bench --fusion größe → \U0001f600"))
    return path


def one_error(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[0].startswith(f"error: stdout cannot be written: {words}")
    assert done.stderr.splitlines()[1:] == ["hint: send it to a file with room, or to a reader"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    "words",
    ["--help", "list", "list fusions --json", "runs --store runs.sqlite", "report --store runs.sqlite --format csv"],
)
def test_a_full_device_in_place_of_stdout_is_one_error(shell: Shell, stored: Path, words: str) -> None:
    before = stored.read_bytes()
    one_error(shell(f"AFFTOOL {words} >/dev/full"), "No space left on device")
    assert stored.read_bytes() == before


@pytest.mark.parametrize("words", ["list", "list fusions --json", "report --store runs.sqlite --json"])
def test_a_closed_stdout_is_one_error_and_its_number_is_given_to_no_file(
    shell: Shell, stored: Path, words: str
) -> None:
    before = stored.read_bytes()
    one_error(shell(f"AFFTOOL {words} >&-"), "Bad file descriptor")
    assert stored.read_bytes() == before


def test_a_reader_that_leaves_ends_the_command_in_silence(shell: Shell, stored: Path) -> None:
    for words in ("--help", "report --store runs.sqlite --json"):
        done = shell(f"AFFTOOL {words} | head -c0; echo ${{PIPESTATUS[0]}}")
        assert (done.stdout, done.stderr) == ("141\n", "")
    done = shell("AFFTOOL list | head -1")
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_stderr_that_takes_nothing_leaves_result_and_exit_code_as_they_are(shell: Shell) -> None:
    for nobody in ("2>/dev/full", "2>&-"):
        done = shell(f"AFFTOOL nope {nobody}; echo $?; AFFTOOL bench --nope {nobody}; echo $?")
        assert (done.stdout, done.stderr) == ("2\n2\n", "")
        done = shell(f"AFFTOOL list fusions --json {nobody}")
        assert done.returncode == 0
        assert json.loads(done.stdout)
    assert shell("AFFTOOL list >&- 2>&- <&-").returncode == 2


def test_letters_that_the_encoding_lacks_are_written_as_escapes_that_json_reads(shell: Shell, stored: Path) -> None:
    done = shell("AFFTOOL report --store runs.sqlite --json", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    for variables in (
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        done = shell("AFFTOOL runs --store runs.sqlite; AFFTOOL list größe", **variables)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert "\\u2192" in done.stdout or "→" in done.stdout


def test_a_name_that_is_no_text_is_refused_and_shown_by_its_bytes(place: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "afftool", "list", b"\xff\xfe"],
        cwd=place.folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"\\udcff\\udcfe" in done.stderr


REGRESSED = """
import sys
from afftool import cli, console
cli.typer.main.get_command = lambda _: lambda **_: (console.out("one regression"), sys.exit(3))
cli.main()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_verdict_that_was_reached_keeps_its_exit_code_where_it_cannot_be_printed(shell: Shell) -> None:
    done = shell(f"{shlex.quote(sys.executable)} -P -c {shlex.quote(REGRESSED)} >/dev/full")
    assert done.returncode == 3
    assert "error: stdout cannot be written: No space left on device" in done.stderr


def test_a_current_directory_that_was_removed_is_one_error(shell: Shell) -> None:
    done = shell("mkdir gone; cd gone; rmdir ../gone; AFFTOOL check --init")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == ["error: the current directory is no longer there", "hint: `cd` to one that is"]
    assert shell("mkdir gone; cd gone; rmdir ../gone; AFFTOOL list fusions --json").returncode == 0
