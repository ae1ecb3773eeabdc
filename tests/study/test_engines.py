"""Wherever cells are trained they give the same bits; killed workers and killed studies cost an epoch at most."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_cells import planned, results, train, two_cells, watched
from watched import HOLD_AT, held, resumed, taken, whole

from afftool.study.cells import CellRecord, FileCheckpoint
from afftool.study.engines import build_engine
from afftool.study.engines.local import LocalEngine, run_here
from afftool.study.run import Shard, run, todo

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The watched cells' results where nothing happens to them: trained here, one after the other."""
    return results(train(planned(watched()), run_here, tmp_path_factory.mktemp("here")))


@pytest.mark.long
def test_two_workers_one_of_them_killed_give_the_same_bits_as_this_process_in_any_order(
    expected: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, killed = planned(watched()), False
    assert results(train(made, run_here, tmp_path / "back", backwards=True)) == expected
    monkeypatch.setenv("WATCHED_LOG", str(tmp_path / "steps"))
    monkeypatch.setenv("WATCHED_HOLD", str(tmp_path / "held"))
    records = []
    for event in run(made, todo(made, {}, Shard()), LocalEngine(("cpu", "cpu")), tmp_path / "two"):
        if isinstance(event, CellRecord):
            records.append(event)
        elif event.epoch == 2 and not killed:
            pid = held(tmp_path / "held")
            assert pid in spawned_children()
            os.kill(pid, signal.SIGKILL)
            killed = True
    assert len(records) == 2
    assert {record.identity: record.result() for record in records} == expected
    assert sorted(taken().values()) == sorted([resumed(epochs=4), whole(epochs=4)])
    assert not list((tmp_path / "two").iterdir())


def spawned_children() -> list[int]:
    """The worker processes of this one, without multiprocessing's own helper."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_as_many_workers_as_cores_by_default() -> None:
    made = two_cells()
    engine = build_engine("local", made, device="cpu", workers=None, address=None, gpus=None)
    assert isinstance(engine, LocalEngine)
    assert len(engine.devices) == len(os.sched_getaffinity(0))


@pytest.mark.long
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_study_killed_in_its_second_cell_goes_on_there_and_gives_the_same_bits(
    workers: str, expected: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` of the whole command in the middle of an epoch; then the same command again."""
    monkeypatch.setenv("WATCHED_LOG", str(tmp_path / "steps"))
    monkeypatch.setenv("WATCHED_HOLD", str(tmp_path / "held"))
    monkeypatch.setenv("WATCHED_CELLS", "2")
    monkeypatch.setenv("AFFTOOL_STORE", str(tmp_path / "runs.sqlite"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "study.toml").write_text(watched().to_toml())
    command = [sys.executable, "-m", "afftool", "ablate", "study.toml", "--workers", workers, "--json"]
    first = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        pid = held(tmp_path / "held")
    finally:
        first.kill()
        first.wait()
    assert (pid == first.pid) == (workers == "0")
    wait_for_the_end_of(pid)  # a worker ends with the command it belongs to
    before = taken()
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = [CellRecord.from_dict(cell) for cell in json.loads(second.stdout)["cells"]]
    assert {record.identity: record.result() for record in found} == expected
    assert "1 of 2 cells are done" in second.stderr
    assert list(before.values()) == [whole(epochs=4), whole(epochs=4)[: HOLD_AT + 1]]
    assert list(taken().values()) == [whole(epochs=4), resumed(epochs=4)]
    assert not list((tmp_path / "cells").iterdir())


def wait_for_the_end_of(pid: int) -> None:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():  # a zombie has none
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    kept = FileCheckpoint(tmp_path, "cell")
    kept.save(b"one")
    (tmp_path / ".part-0a1b2c3d-cell.pt").write_bytes(b"tw")  # what a kill in the middle of the next save leaves
    assert kept.load() == b"one"
    kept.drop()
    assert kept.load() is None
    assert not list(tmp_path.iterdir())


def test_workers_map_the_data_and_do_not_copy_it(tmp_path: Path) -> None:
    from afftool.study.engines.local import _load, _save

    data = two_cells().data
    (loaded,) = _load(_save(two_cells().subsets, tmp_path)).values()
    assert isinstance(loaded.train_images, np.memmap)
    assert (loaded.train_images == data.train_images).all()
    assert (loaded.mean, loaded.std, loaded.task) == (data.mean, data.std, data.task)
