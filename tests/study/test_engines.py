"""Wherever cells are trained they give the same bits; killed workers and killed studies cost an epoch at most."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from small_cells import planned, results, train, two_cells

from afftool.study.cells import CellRecord
from afftool.study.checkpoints import FileCheckpoint
from afftool.study.engines import build_engine
from afftool.study.engines.gpus import share
from afftool.study.engines.here import run_here
from afftool.study.engines.local import LocalEngine
from afftool.study.request import Words, requested
from afftool.study.run import Shard, run, todo


def test_two_workers_one_of_them_killed_give_the_same_bits_as_this_process_in_any_order(tmp_path: Path) -> None:
    made, killed = two_cells(), False
    records = []
    for event in run(made, todo(made, {}, Shard()), LocalEngine(("cpu", "cpu")), tmp_path / "two"):
        if isinstance(event, CellRecord):
            records.append(event)
        elif not killed:
            os.kill(spawned_children()[0], signal.SIGKILL)
            killed = True
    here = results(train(made, run_here, tmp_path / "here"))
    assert killed
    assert len(records) == 2
    assert {record.identity: record.result() for record in records} == here
    assert results(train(made, run_here, tmp_path / "back", backwards=True)) == here
    assert not list((tmp_path / "two").iterdir())


def spawned_children() -> list[int]:
    """The worker processes of this one, without multiprocessing's own helper."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_gpus_are_shared_by_memory() -> None:
    gib = 2**30
    assert share([80 * gib, 80 * gib], 4 * gib, cores=6) == (0, 1, 0, 1, 0, 1)
    assert share([12 * gib, 80 * gib], 4 * gib, cores=5) == (0, 1, 0, 1, 1)
    assert share([2 * gib], 4 * gib, cores=16) == (0,)


def test_as_many_workers_as_cores_by_default() -> None:
    made = two_cells()
    engine = build_engine("local", made, device="cpu", workers=None, address=None, gpus=None)
    assert isinstance(engine, LocalEngine)
    assert len(engine.devices) == len(os.sched_getaffinity(0))


def test_a_study_killed_in_the_middle_goes_on_and_gives_the_same_bits(tmp_path: Path) -> None:
    """`kill -9` of the whole command after its first epochs; then the same command again."""
    words = Words(
        study="scale", data="digits", train_images=96, seeds=1, epochs=12, batch=32, variants=("global-global", "aff")
    )
    command = [sys.executable, "-m", "afftool", "ablate", "scale", "--data", "digits", "--train-images", "96"]
    command += ["--seeds", "1", "--epochs", "12", "--batch", "32", "--variants", "global-global,aff"]
    environment = os.environ | {"AFFTOOL_STORE": str(tmp_path / "runs.sqlite"), "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([*command, "--workers", "1"], env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cells").glob("*.pt")):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.005)
    first.kill()
    first.wait()
    command += ["--workers", "0", "--json"]
    second = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = [CellRecord.from_dict(cell) for cell in json.loads(second.stdout)["cells"]]
    whole = train(planned(requested(words)), run_here, tmp_path / "whole")
    assert {record.identity: record.result() for record in found} == results(whole)
    assert "cells are done" in second.stderr
    assert "2 of 2 cells are done" not in second.stderr
    assert not list((tmp_path / "cells").iterdir())


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    kept = FileCheckpoint(tmp_path, "cell")
    kept.save(b"one")
    (tmp_path / "cell.999.part").write_bytes(b"tw")  # what a kill in the middle of the next save leaves
    assert kept.load() == b"one"
    kept.drop()
    assert kept.load() is None
    assert not list(tmp_path.iterdir())


def test_workers_map_the_data_and_do_not_copy_it(tmp_path: Path) -> None:
    from afftool.study.engines.local import _load, _save

    data = two_cells().data
    loaded = _load(tmp_path, _save(data, tmp_path))
    assert isinstance(loaded.train_images, np.memmap)
    assert (loaded.train_images == data.train_images).all()
    assert (loaded.mean, loaded.std, loaded.task) == (data.mean, data.std, data.task)
