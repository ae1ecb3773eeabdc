"""Wherever cells are trained they give the same bits; killed workers and killed studies cost an epoch at most."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from small_cells import results, train, two_cells

from afftool.study.checkpoints import FileCheckpoint
from afftool.study.engines import build_engine
from afftool.study.engines.gpus import share
from afftool.study.engines.here import run_here
from afftool.study.engines.local import LocalEngine
from afftool.study.run import Shard, run, todo
from afftool.study.train import Tick


def test_one_process_two_workers_and_any_order_give_the_same_bits(tmp_path: Path) -> None:
    made = two_cells()
    here = results(train(made, run_here, tmp_path / "here"))
    two = results(train(made, LocalEngine(("cpu", "cpu")), tmp_path / "two"))
    backwards = results(train(made, run_here, tmp_path / "back", backwards=True))
    assert here == two == backwards
    assert len(here) == 2
    assert not list((tmp_path / "two").iterdir())


def test_a_killed_worker_is_replaced_and_its_cell_finishes_once(tmp_path: Path) -> None:
    made = two_cells()
    ended, killed = [], False
    for event in run(made, todo(made, {}, Shard()), LocalEngine(("cpu",)), tmp_path):
        if isinstance(event, Tick):
            if not killed:
                children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
                workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
                for worker in workers:
                    os.kill(worker, signal.SIGKILL)
                killed = bool(workers)
        else:
            ended.append(event)
    assert killed
    assert {record.identity: record.result() for record in ended} == results(train(made, run_here, tmp_path / "here"))
    assert len(ended) == 2


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
    """`kill -9` of the whole command after its first epochs; the second run trains what is missing, and only that."""
    command = [sys.executable, "-m", "afftool", "ablate", "scale", "--data", "digits", "--train-images", "96"]
    command += ["--seeds", "1", "--epochs", "40", "--batch", "32", "--workers", "1", "--variants", "global-global,aff"]
    environment = os.environ | {"AFFTOOL_STORE": str(tmp_path / "runs.sqlite"), "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    checkpoints = tmp_path / "cells"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*.pt")):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.communicate()
    second = subprocess.run(
        [*command, "--json"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = json.loads(second.stdout)
    whole = subprocess.run(
        [*command, "--workers", "0"],
        env=environment | {"AFFTOOL_STORE": str(tmp_path / "other.sqlite")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    timed = {"images_per_s", "train_s", "finished_at"}
    mine, theirs = (
        [{k: v for k, v in cell.items() if k not in timed} for cell in document["cells"]]
        for document in (found, json.loads(whole.stdout))
    )
    assert mine == theirs
    assert len(mine) == 2
    assert not list(checkpoints.glob("*"))


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
