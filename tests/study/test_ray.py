"""The same cells on a Ray cluster of two nodes, with a worker killed and a node removed in the middle."""

import os
import signal
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from small_cells import planned, results, train, two_cells, watched
from watched import held, resumed, taken, whole

from afftool.errors import SpecError
from afftool.study.cells import CellRecord
from afftool.study.engines import check_cluster
from afftool.study.engines.local import run_here
from afftool.study.engines.ray import RayEngine
from afftool.study.run import Shard, run, todo

ray = pytest.importorskip("ray", reason="needs the extra `ray`")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """One node, whose workers take down their steps and wait once; so do those of the nodes added to it."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("WATCHED_LOG", str(tmp_path / "steps"))
    monkeypatch.setenv("WATCHED_HOLD", str(tmp_path / "held-at-head"))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    monkeypatch.delenv("WATCHED_HOLD")
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def test_every_cell_finishes_once_through_a_killed_worker_and_a_lost_node(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cluster.add_node(num_cpus=1, env_vars={"WATCHED_HOLD": str(tmp_path / "held-at-other")})
    made = planned(watched(seeds=2))
    engine = RayEngine(address=cluster.address)
    ended: list[CellRecord] = []
    killed = False
    for event in run(made, todo(made, {}, Shard()), engine, tmp_path / "ray"):
        if isinstance(event, CellRecord):
            ended.append(event)
        elif event.epoch == 2 and not killed:
            one, two = held(tmp_path / "held-at-head"), held(tmp_path / "held-at-other")
            assert descends(one)
            assert descends(two)
            os.kill(one, signal.SIGKILL)
            cluster.remove_node(other, allow_graceful=False)
            killed = True
    assert len(ended) == 4
    assert sorted(taken().values()) == sorted([resumed(epochs=4), resumed(epochs=4), whole(epochs=4), whole(epochs=4)])
    monkeypatch.delenv("WATCHED_LOG")
    assert {record.identity: record.result() for record in ended} == results(train(made, run_here, tmp_path / "here"))


def test_a_cluster_is_asked_for_room_and_given_no_more_cells_at_a_time_than_workers(
    cluster: Any, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)
    with pytest.raises(SpecError, match=r"--threads 2 .* 1 CPUs"):
        check_cluster("ray", device="cpu", threads=2, workers=None, address=cluster.address, gpus=None)
    with pytest.raises(SpecError, match=r"0\.5 GPUs, and no node"):
        check_cluster("ray", device="cpu", threads=1, workers=None, address=cluster.address, gpus=0.5)
    check_cluster("ray", device="cpu", threads=1, workers=1, address=cluster.address, gpus=None)

    made = two_cells()
    engine = RayEngine(address=cluster.address, workers=1)
    events = list(run(made, todo(made, {}, Shard()), engine, tmp_path / "ray"))
    assert len(list(groupby(events, key=lambda event: event.identity))) == 2
    assert sum(isinstance(event, CellRecord) for event in events) == 2


def descends(pid: int) -> bool:
    """Whether a process is a child of this one, or a child's child, and so on: the cluster's nodes are children."""
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if pid == os.getpid():
            return True
    return False
