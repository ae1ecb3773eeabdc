"""Calibration: that the best counts, that it ends, and that what comes out is a usable set of ceilings."""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from fake_time import FakeClock, FakeGpu
from torch.utils.flop_counter import FlopCounterMode

from afftool.measure.ceilings import calibrate
from afftool.measure.ceilings.calibrate import (
    ELEMENT,
    SIDES,
    _bandwidths,
    _ceilings_alone,
    _matrix_rate,
    _Timer,
    out_of_cache,
    rounding_of,
)

META = torch.device("meta")


def test_the_timer_keeps_the_best_sample_and_repeats_short_calls() -> None:
    clock, calls = FakeClock(), itertools.count()
    # one call in seven is five times slower
    best = _Timer(torch.device("cpu"), 0.05, clock).best(lambda: clock.pass_time(1e-4 * (1 if next(calls) % 7 else 5)))
    assert 1e-4 <= best < 5e-4


def test_the_timer_makes_one_sample_of_a_call_that_takes_longer_than_its_share() -> None:
    clock, made = FakeClock(), itertools.count()

    def run() -> None:
        clock.pass_time(3.0)
        next(made)

    assert _Timer(torch.device("cpu"), 0.05, clock).best(run) == 3.0
    assert next(made) <= 3


class FlopTimer:
    """Products of matrices without data, on a device of so many FLOP/s that takes so long to launch one."""

    def __init__(self, flops_per_s: float, launch_s: float) -> None:
        self._flops_per_s, self._launch_s = flops_per_s, launch_s
        self.flops: list[int] = []

    def best(self, run: Callable[[], object]) -> float:
        with FlopCounterMode(display=False) as counted:
            run()
        self.flops.append(counted.get_total_flops())
        return self._launch_s + self.flops[-1] / self._flops_per_s

    @property
    def sides(self) -> set[int]:
        return {round((flops / 2) ** (1 / 3)) for flops in self.flops}


@pytest.mark.parametrize(
    ("flops_per_s", "largest"), [(800e12, 8192), (50e12, 8192), (8e12, 4096), (1e11, 1024), (1e6, 256)]
)
def test_a_gpu_multiplies_the_largest_matrices_that_it_can_in_time(flops_per_s: float, largest: int) -> None:
    timer = FlopTimer(flops_per_s, launch_s=2e-5)
    rate = _matrix_rate(META, torch.float32, timer, SIDES["cuda"])
    assert timer.sides == {side for side in (256, 1024, 4096, 8192) if side <= largest}
    assert rate.side == largest
    assert rate.flops_per_s == pytest.approx(flops_per_s, rel=0.05)


class FakeGraph:
    """Replays what was called while it was captured, at one launch for all."""

    launch_s, node_s = 1e-5, 1e-6

    def __init__(self, gpu: FakeGpu, kernels: list[float]) -> None:
        self._gpu, self._kernels = gpu, kernels
        self.captured: list[float] = []

    def replay(self) -> None:
        self._gpu.launch(self.launch_s, sum(max(self.node_s, kernel_s) for kernel_s in self.captured))


def test_bandwidths_of_a_gpu_are_those_of_copies_within_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that moves 4 TB/s at any size, and whose launches from Python take 7 us each."""
    gpu = FakeGpu()
    outside: list[float] = []
    queue = outside

    def kernel(moved: int) -> None:
        seconds = moved / 4e12
        queue.append(seconds)
        if queue is outside:
            gpu.launch(7e-6, seconds)

    class Map:
        def __init__(self, count: int) -> None:
            self.nbytes = 4 * count

        def copy_(self, other: Any) -> None:
            kernel(2 * self.nbytes)

        def sum(self) -> None:
            kernel(self.nbytes)

    class Maps:
        def __init__(self, number: int, count: int) -> None:
            self._maps = [Map(count) for _ in range(number)]

        def unbind(self) -> list[Map]:
            return self._maps

    def capture(graph: FakeGraph, stream: object) -> AbstractContextManager[None]:
        nonlocal queue
        queue = graph.captured
        return Captures()

    class Captures(nullcontext[None]):
        def __exit__(self, *error: object) -> None:
            nonlocal queue
            queue = outside

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: FakeGraph(gpu, queue))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch, "ones", lambda *counts, device: Maps(*counts) if len(counts) > 1 else Map(*counts))
    monkeypatch.setattr(torch, "add", lambda b, c, alpha, out: kernel(3 * b.nbytes))
    device = torch.device("cuda:0")
    found = dict(_bandwidths(device, _Timer(device, 0.01, gpu)))
    assert found[1 << 18] == pytest.approx((1 << 18) / FakeGraph.node_s, rel=0.05)  # not the 7 us of a launch
    assert found[64 << 20] == pytest.approx(4e12, rel=0.05)
    assert found[256 << 20] == pytest.approx(4e12, rel=0.05)


def test_a_set_that_a_larger_one_outdoes_was_kept_by_its_launches_and_is_no_ceiling() -> None:
    assert _ceilings_alone([(1, 2.0), (2, 9.0), (4, 7.0), (8, 8.0), (16, 4.0)]) == [(2, 9.0), (8, 8.0), (16, 4.0)]


def test_what_float32_was_rounded_to_is_told_from_a_product() -> None:
    told = {name: float(torch.tensor(ELEMENT).to(name)) for name in (torch.float32, torch.bfloat16)}
    assert {str(name): rounding_of(x * x) for name, x in told.items()} == {
        "torch.float32": "ieee",
        "torch.bfloat16": "bf16",
    }
    ten_bits = round(ELEMENT * 2**10) / 2**10
    assert rounding_of(ten_bits**2) == "tf32"


def test_every_dtype_and_size_gets_a_ceiling_and_threads_are_put_back() -> None:
    threads = torch.get_num_threads()
    found = calibrate.calibrate("cpu", seconds_each=0.002)
    assert torch.get_num_threads() == threads
    sizes = [size for size, _ in found.bandwidths]
    assert sizes == sorted(sizes)
    assert sizes[-1] == out_of_cache(torch.device("cpu")) >= 256 << 20
    assert all(rate > 0 for _, rate in found.bandwidths)
    assert set(found.flops_per_s) == {"float32", "bfloat16", "float16"}
    assert all(rate > 0 for rate in found.flops_per_s.values())
    assert set(found.matrix_sides) == set(found.flops_per_s)
    assert set(found.matrix_sides.values()) <= set(SIDES["cpu"])
    assert found.float32_rounding == "ieee"
    assert 0 < found.launch_s < 1
    assert found.graph_launch_s is None


@pytest.fixture(scope="module")
def found() -> calibrate.Ceilings:
    return calibrate.calibrate("cuda:0")


@pytest.mark.gpu
def test_a_gpu_launches_faster_from_a_graph_than_from_python(found: calibrate.Ceilings) -> None:
    assert found.graph_launch_s is not None
    assert 0 < found.graph_launch_s < found.launch_s


@pytest.mark.gpu
def test_a_gpu_s_bandwidths_are_not_those_of_its_launches(found: calibrate.Ceilings) -> None:
    rates = [rate for _, rate in found.bandwidths]
    assert rates == sorted(rates, reverse=True)
    assert found.bandwidths[-1][0] == out_of_cache(torch.device("cuda:0"))
    assert found.main_memory > 1e11


@pytest.mark.gpu
def test_a_gpu_s_matrix_rates_are_those_of_large_matrices_and_float32_s_says_what_it_is(
    found: calibrate.Ceilings,
) -> None:
    assert min(found.matrix_sides.values()) >= 1024
    assert found.flops_per_s["float16"] > found.flops_per_s["float32"] > 1e12
    tf32 = torch.cuda.get_device_capability("cuda:0") >= (8, 0) and torch.backends.cudnn.allow_tf32
    assert found.float32_rounding == ("tf32" if tf32 else "ieee")
