"""The same cells on a Ray cluster of two nodes, with a worker killed and a node removed in the middle."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_cells import planned, results, small, train

from afftool.study.cells import CellRecord
from afftool.study.engines.here import run_here
from afftool.study.engines.ray import RayEngine
from afftool.study.run import Shard, run, todo

ray = pytest.importorskip("ray", reason="needs the extra `ray`")


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def test_every_cell_finishes_once_through_a_killed_worker_and_a_lost_node(cluster: Any, tmp_path: Path) -> None:
    other = cluster.add_node(num_cpus=1)
    made = planned(small(seeds=2, epochs=4).with_variants(["global-global", "aff"]))
    engine = RayEngine(address=cluster.address)
    ended: list[CellRecord] = []
    killed = removed = False
    for event in run(made, todo(made, {}, Shard()), engine, tmp_path / "ray"):
        if isinstance(event, CellRecord):
            ended.append(event)
        if not killed:
            killed = kill_a_training_worker()
        elif not removed and ended:
            cluster.remove_node(other)
            removed = True
    assert killed
    assert removed
    assert len(ended) == 4
    assert {record.identity: record.result() for record in ended} == results(train(made, run_here, tmp_path / "here"))


def kill_a_training_worker() -> bool:
    """SIGKILL to one of this test's own Ray processes that is training a cell right now."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                title = (process / "cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            if title.startswith(b"ray::_train_remotely") and descends(int(process.name)):
                os.kill(int(process.name), signal.SIGKILL)
                return True
    return False


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
