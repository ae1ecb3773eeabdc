"""What a Ray cluster could never carry out is refused before any work, whatever the cluster."""

import dataclasses
import os
import socket
from pathlib import Path

import pytest
from small_cells import two_cells

from afftool.errors import LoadError, SpecError, UserError
from afftool.study.cells import CellRecord
from afftool.study.engines import check_cluster, check_engine, device_of
from afftool.study.engines.cluster import Node, check_room, nodes_alive, nodes_at
from afftool.study.engines.ray import _train_remotely, other_bits, own_paths

ray = pytest.importorskip("ray", reason="needs the extra `ray`")
TWO = [Node(2, 1), Node(8)]


@pytest.mark.parametrize(
    ("nodes", "threads", "gpus", "says"),
    [
        (TWO, 9, 0, "--threads 9 .* 8 CPUs"),
        (TWO, 1, 2, "--gpus 2 .* has: 1"),
        (TWO, 4, 0.5, "no node .* 4 CPUs and 0.5 GPUs at once"),
        ([Node(8)], 1, 0.1, "0.1 GPUs, and no node .* has one"),
        ([Node(0)], 1, 0, "--threads 1 .* 0 CPUs"),
        ([], 1, 0, "--threads 1 .* 0 CPUs"),
    ],
)
def test_a_cell_that_no_node_has_room_for_is_refused(nodes: list[Node], threads: int, gpus: float, says: str) -> None:
    with pytest.raises(SpecError, match=says) as caught:
        check_room(nodes, threads=threads, gpus=gpus)
    assert caught.value.hint


@pytest.mark.parametrize(("threads", "gpus"), [(1, 0), (8, 0), (2, 1), (1, 0.25)])
def test_a_cell_that_fits_some_node_is_not(threads: int, gpus: float) -> None:
    check_room(TWO, threads=threads, gpus=gpus)


def test_only_living_nodes_count() -> None:
    described = [{"Alive": False, "Resources": {"CPU": 64.0}}, {"Alive": True, "Resources": {"GPU": 1.0}}]
    assert nodes_alive(described) == [Node(0, 1)]


@pytest.mark.parametrize("gpus", [-1, -0.5, float("nan"), float("inf"), 1.5, 1e-6])
def test_what_is_no_number_of_gpus_is_refused(gpus: float) -> None:
    with pytest.raises(SpecError, match="--gpus"):
        check_engine("ray", workers=None, address=None, gpus=gpus)


@pytest.mark.parametrize("gpus", [0, 0.0001, 0.25, 1, 4])
def test_a_share_of_a_gpu_or_some_of_them_can_be_asked_for(gpus: float) -> None:
    check_engine("ray", workers=1, address=None, gpus=gpus)


@pytest.mark.parametrize(
    "address", ["", "auto!", "here", ":6379", "here:", "here:port", "here:0", "here:70000", "http://here:6379", "a b:1"]
)
def test_what_is_no_address_is_refused_without_a_try(address: str) -> None:
    with pytest.raises(SpecError, match="no address") as caught:
        check_engine("ray", workers=None, address=address, gpus=None)
    assert "HOST:PORT" in (caught.value.hint or "")


@pytest.mark.parametrize("address", ["auto", "here:6379", "10.0.0.1:6379", "[::1]:6379", "ray://here.org:10001"])
def test_an_address_is_taken(address: str) -> None:
    check_engine("ray", workers=None, address=address, gpus=None)


def test_a_port_where_nobody_listens_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afftool.study.engines.cluster.subprocess.run", None)  # Ray, which would try on, is not asked
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(LoadError, match=f"127.0.0.1:{port}.*refused") as caught:
        nodes_at(f"127.0.0.1:{port}")
    assert "ray start --head" in (caught.value.hint or "")


def test_a_server_that_is_no_cluster_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afftool.study.engines.cluster._ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(UserError, match="no Ray cluster at"):
        nodes_at(f"127.0.0.1:{server.getsockname()[1]}")


def test_what_ray_says_of_an_address_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ray.py").write_text(
        "raise SystemExit('not the library')"
    )  # a file of the user's is not mistaken for it
    with pytest.raises(LoadError, match="no Ray cluster at 'nonsense': ValueError"):
        nodes_at("nonsense")


def test_without_an_address_this_machine_is_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cores = len(os.sched_getaffinity(0))
    check_cluster("ray", device="cpu", threads=cores, workers=None, address=None, gpus=None)
    with pytest.raises(SpecError, match=f"--threads {cores + 1} .* {cores} CPUs"):
        check_cluster("ray", device="cpu", threads=cores + 1, workers=3, address=None, gpus=None)
    with pytest.raises(SpecError, match="without the GPU"):
        check_cluster("ray", device="cuda:0", threads=1, workers=None, address=None, gpus=0)


def test_a_node_that_would_train_to_other_bits_is_told_and_trains_nothing() -> None:
    cell = two_cells().cells[0][2]
    assert other_bits(cell) is None
    assert "a node has torch" in str(other_bits(dataclasses.replace(cell, torch="1.0")))
    elsewhere = dataclasses.replace(cell, capability="AVX9000")
    small, large = two_cells().data.parts()
    record = CellRecord.from_dict(_train_remotely(elsewhere.to_dict(), None, small, tuple(large), *large.values()))
    assert (record.status, record.finished) == ("failed", False)
    assert "planned for AVX9000" in str(record.reason)


def test_what_the_users_own_module_imports_is_sent_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "sent_gate.py").write_text(
        "from sent_parts.plain import Plain\nclass Gate(Plain):\n    pass\n", encoding="utf-8"
    )
    (tmp_path / "sent_parts").mkdir()
    (tmp_path / "sent_parts" / "__init__.py").touch()
    (tmp_path / "sent_parts" / "plain.py").write_text(
        "from torch import nn\nclass Plain(nn.Module):\n    def forward(self, x, y):\n        return x + y\n"
    )
    cell = dataclasses.replace(two_cells().cells[0][2], fusion="sent_gate:Gate")
    assert own_paths([cell]) == [str(tmp_path / "sent_gate.py"), str(tmp_path / "sent_parts")]


def test_a_machine_without_a_gpu_can_ask_a_cluster_for_one() -> None:
    assert device_of("ray", "auto", 0.25) == device_of("ray", "cuda", None) == "cuda"
    assert device_of("ray", "cpu", None) == "cpu"
    with pytest.raises(SpecError, match="for cells on the CPU"):
        device_of("ray", "cpu", 0.5)
