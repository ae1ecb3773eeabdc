"""Peaks by the statistics of CUDA's allocator, on a device that is made up."""

from collections.abc import Callable

import fake_cuda
import pytest
import torch
from fake_cuda import WORKSPACE, FakeCuda

from afftool.backends.capture import Graphs
from afftool.measure.memory.phases import CudaStatistics

MB = 1 << 20
DEVICE = torch.device("cuda", 0)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return fake_cuda.installed(monkeypatch)


def read(cuda: FakeCuda, cold: Callable[[], None], steady: Callable[[], None]) -> CudaStatistics:
    """Statistics of a case that needs cuBLAS, the way `peak.py` takes them."""
    statistics = CudaStatistics(DEVICE, cuda.matmul)
    for stage, work in (("cold", cold), ("steady", steady)):
        statistics.start()
        work()
        statistics.stop(stage)
        steady()  # settles: cuBLAS has its workspace again before the next stage
    return statistics


def test_a_workspace_of_cublas_is_no_cases_memory_whoever_took_one_before(cuda: FakeCuda) -> None:
    cuda.current = torch.cuda.Stream()  # type: ignore[no-untyped-call,assignment]
    cuda.matmul()  # a neighbour's, on a stream of its own
    cuda.current = cuda.default

    def step() -> None:
        cuda.matmul()
        cuda.free(cuda.allocate(3 * MB))

    held: list[object] = []
    found = read(cuda, lambda: held.append(cuda.allocate(MB)), step)
    assert (found.cold_peak("cold"), found.peak("steady")) == (MB, 4 * MB)
    assert found.reserved("steady") == 4 * MB
    assert found.pool() == 0


def captured(cuda: FakeCuda, nbytes: int) -> tuple[CudaStatistics, Graphs]:
    own: list[Graphs] = []

    def capture() -> None:
        def part() -> None:
            cuda.matmul()
            cuda.free(cuda.allocate(nbytes))

        own.append(Graphs(torch.cuda.Stream()))  # type: ignore[no-untyped-call]
        own[0].capture({"forward": part}, lambda: None)

    statistics = read(cuda, capture, lambda: None)
    statistics.library_bytes = own[0].library_bytes
    return statistics, own[0]


def test_a_graphs_pool_counts_once_in_the_cold_peak_and_without_its_workspace(cuda: FakeCuda) -> None:
    found, own = captured(cuda, 50 * MB)
    assert own.library_bytes == WORKSPACE
    assert found.pool() == 50 * MB
    assert found.cold_peak("cold") == 50 * MB
    assert found.peak("steady") == 50 * MB
    assert found.reserved("steady") == 50 * MB


def test_what_a_pools_idle_blocks_were_asked_for_is_not_known(cuda: FakeCuda) -> None:
    found, _ = captured(cuda, 1000)
    assert found.requested("steady") is None


def test_what_was_asked_for_is_exact_where_blocks_are_larger(cuda: FakeCuda) -> None:
    cuda.allocate(700)  # a neighbour's

    def step() -> None:
        cuda.matmul()
        cuda.free(cuda.allocate(1000))

    found = read(cuda, lambda: None, step)
    assert (found.requested("steady"), found.peak("steady")) == (1000, 1024)


def test_room_in_a_neighbours_segment_is_reserved_for_the_case_that_uses_it(cuda: FakeCuda) -> None:
    neighbour = cuda.allocate(MB, segment_bytes=20 * MB)

    def cold() -> None:
        cuda.extend(neighbour, 2 * MB)

    found = read(cuda, cold, cuda.matmul)
    assert found.peak("steady") == 2 * MB
    assert found.reserved("steady") == 19 * MB
    assert found.reserved("steady") >= found.peak("steady")
