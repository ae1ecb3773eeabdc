"""The same cells on a Ray cluster of two nodes, with a worker killed and a node removed in the middle."""

import os
import signal
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import dying
import pytest
from small_cells import mortal, planned, results, train, two_cells, watched
from watched import held, resumed, taken, whole

from afftool.errors import SpecError
from afftool.study.cells import CellRecord
from afftool.study.engines import check_cluster
from afftool.study.engines.local import run_here
from afftool.study.engines.ray import RayEngine
from afftool.study.run import Shard, run, todo

ray = pytest.importorskip("ray", reason="needs the extra `ray`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where watched cells of any node take down their steps."""
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Any]:
    """One cluster for all tests here: two nodes, whose workers take down their steps and wait once."""
    from ray.cluster_utils import Cluster

    def watching(node: str) -> dict[str, str]:
        return {"WATCHED_LOG": str(folder / "steps"), "WATCHED_HOLD": str(folder / f"held-at-{node}")}

    with pytest.MonkeyPatch.context() as patch:  # the head takes its variables from here
        for name, value in watching("head").items():
            patch.setenv(name, value)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.other = made.add_node(num_cpus=1, env_vars=watching("other"))
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.long
def test_a_cluster_is_asked_for_room_and_given_no_more_cells_at_a_time_than_workers(
    cluster: Any, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=r"--threads 2 .* 1 CPUs"):
        check_cluster("ray", device="cpu", threads=2, workers=None, address=cluster.address, gpus=None)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        with pytest.raises(SpecError, match=r"0\.5 GPUs, and no node"):
            check_cluster("ray", device="cpu", threads=1, workers=None, address=cluster.address, gpus=0.5)
        check_cluster("ray", device="cpu", threads=1, workers=1, address=cluster.address, gpus=None)

        made = two_cells()
        engine = RayEngine(address=cluster.address, workers=1)
        events = list(run(made, todo(made, {}, Shard()), engine, tmp_path / "ray"))
        assert ray.is_initialized(), "whoever was connected before stays so"
    finally:
        ray.shutdown()
    assert len(list(groupby(events, key=lambda event: event.identity))) == 2
    assert sum(isinstance(event, CellRecord) for event in events) == 2


@pytest.mark.long
def test_every_cell_finishes_once_through_a_killed_worker_and_a_lost_node(
    cluster: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHED_LOG", str(folder / "steps"))
    made = planned(watched(seeds=2))
    engine = RayEngine(address=cluster.address)
    ended: list[CellRecord] = []
    killed = False
    for event in run(made, todo(made, {}, Shard()), engine, tmp_path / "ray"):
        if isinstance(event, CellRecord):
            ended.append(event)
        elif event.epoch == 2 and not killed:
            one, two = held(folder / "held-at-head"), held(folder / "held-at-other")
            assert descends(one)
            assert descends(two)
            os.kill(one, signal.SIGKILL)
            cluster.remove_node(cluster.other, allow_graceful=False)
            killed = True
    assert len(ended) == 4
    assert sorted(taken().values()) == sorted([resumed(epochs=4), resumed(epochs=4), whole(epochs=4), whole(epochs=4)])
    monkeypatch.delenv("WATCHED_LOG")
    assert {record.identity: record.result() for record in ended} == results(train(made, run_here, tmp_path / "here"))


@pytest.mark.long
def test_a_process_whose_gpu_is_lost_ends_and_its_cell_goes_on_in_a_fresh_one(
    cluster: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is one that Ray counts and nobody uses."""
    monkeypatch.setenv("DYING_LOG", str(folder / "deaths"))
    node = cluster.add_node(num_cpus=1, num_gpus=1, env_vars={"DYING_LOG": str(folder / "deaths")})
    made = planned(mortal().with_variants(["dying:Dying", "aff"]))
    try:
        records = train(made, RayEngine(address=cluster.address, gpus=1), tmp_path / "ray")
    finally:
        cluster.remove_node(node)
    assert [record.status for record in records.values()] == ["ok", "ok"]
    assert dying.deaths() == 1


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
