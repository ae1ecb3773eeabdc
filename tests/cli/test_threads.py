"""`--threads`: so many, or as many as cores are free; what the machine is like is made up here."""

import sys
from pathlib import Path

import pytest
import torch

from afftool.cli import main
from afftool.free_cores import Room
from afftool.store import Store


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def bench(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run it in this process, on next to nothing; its exit code."""
    small = ["bench", "-f", "aff", "-c", "4", "-s", "4", "-b", "1", "--device", "cpu", "--baseline", "none"]
    timed = [] if "-m" in words else ["-m", "latency", "--budget", "0.01", "--backend", "eager", "--allocator", "kept"]
    monkeypatch.setattr(sys, "argv", ["afftool", *small, *timed, *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def threads_kept() -> int:
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        return store.run("latest").environment.threads


@pytest.fixture
def _one_core_of_two_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("afftool.cli.threads.room", lambda: Room(cores=2, others=1.0))
    torch.set_num_threads(2)


@pytest.mark.usefixtures("_one_core_of_two_is_busy")
def test_a_bench_beside_a_busy_core_says_so_at_once_and_keeps_the_threads_it_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch) == 0
    said = capsys.readouterr().err
    assert said.startswith("other processes keep 1 of 2 cores busy: measuring with 1 thread where torch would use 2")
    assert threads_kept() == 1


@pytest.mark.usefixtures("_one_core_of_two_is_busy")
def test_threads_that_were_asked_for_are_used_and_what_they_are_worth_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch, "--threads", "2") == 0
    assert "2 threads will wait for each other" in capsys.readouterr().err
    assert threads_kept() == 2


def test_what_the_shell_told_torch_stays_unless_auto_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr("afftool.cli.threads.room", lambda: Room(cores=2, others=1.0))
    torch.set_num_threads(2)
    assert bench(monkeypatch) == 0
    assert threads_kept() == 2
    assert bench(monkeypatch, "--threads", "auto") == 0
    assert threads_kept() == 1


@pytest.mark.usefixtures("_one_core_of_two_is_busy")
def test_counting_takes_no_time_that_others_could_disturb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch, "-m", "cost") == 0
    assert "other processes" not in capsys.readouterr().err
    assert threads_kept() == 2


@pytest.mark.parametrize("word", ["0", "-1", "1.5", "all"])
def test_anything_else_is_refused_before_any_work(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(monkeypatch, "--threads", word) == 2
    assert "neither a whole number from 1 on nor auto" in capsys.readouterr().err
