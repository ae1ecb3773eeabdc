"""Energy by a counter that ticks, with a clock and a counter of the test's; and the reason where nothing counts."""

import sys
import types

import pytest

from afftool.errors import Unavailable
from afftool.measure import energy


class Board:
    """A GPU that draws constant power and whose counter is refreshed every `tick_s`; one step takes `step_s`."""

    def __init__(self, watts: float, step_s: float, tick_s: float) -> None:
        self.now = 0.013
        self.watts, self.step_s, self.tick_s = watts, step_s, tick_s
        self.steps = 0

    def run(self, steps: int) -> None:
        self.now += steps * self.step_s
        self.steps += steps

    def counter(self) -> int:
        refreshed = int(self.now / self.tick_s) * self.tick_s
        return int(1000 * self.watts * refreshed)

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize("step_s", [2e-5, 1e-3, 0.07])
@pytest.mark.parametrize("tick_s", [0.0001, 0.02, 0.1])
def test_a_step_costs_power_times_its_time_whatever_the_counter_s_refresh(step_s: float, tick_s: float) -> None:
    board = Board(watts=300.0, step_s=step_s, tick_s=tick_s)
    joules = energy.joules_per_step(board.run, board.counter, seconds=1.0, clock=board.clock)
    assert joules == pytest.approx(300.0 * step_s, rel=0.08)


def test_the_loop_is_no_longer_than_it_must_be() -> None:
    board = Board(watts=300.0, step_s=1e-3, tick_s=0.02)
    energy.joules_per_step(board.run, board.counter, seconds=2.0, clock=board.clock)
    assert 2.0 <= board.now <= 2.5


def test_a_counter_that_stands_still_gives_none_and_not_zero() -> None:
    board = Board(watts=0.0, step_s=1e-3, tick_s=0.02)
    assert energy.joules_per_step(board.run, board.counter, seconds=0.5, clock=board.clock) is None


def test_there_is_no_energy_on_a_cpu_and_no_step_is_made_for_it() -> None:
    board = Board(watts=1.0, step_s=1e-3, tick_s=0.02)
    with pytest.raises(Unavailable, match="on the CPU"):
        energy.joules(board.run, "cpu")
    assert board.steps == 0


def test_there_is_none_without_the_nvml_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(Unavailable) as caught:
        energy.find_counter("cuda:0")
    assert "afftool[gpu]" in str(caught.value)


def test_there_is_none_where_nvml_finds_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def no_driver() -> None:
        raise NVMLError("driver not loaded")

    fake = types.ModuleType("pynvml")
    fake.NVMLError, fake.nvmlInit = NVMLError, no_driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    with pytest.raises(Unavailable, match="driver not loaded"):
        energy.find_counter("cuda:0")


def test_a_counter_that_stands_still_is_told_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "find_counter", lambda device: lambda: 0)
    monkeypatch.setattr("torch.cuda.synchronize", lambda device: None)
    with pytest.raises(Unavailable, match="stood still"):
        energy.joules(lambda steps: None, "cuda:0", seconds=0.01)


@pytest.mark.gpu
def test_a_busy_gpu_draws_between_ten_and_two_thousand_watts() -> None:
    import time

    import torch

    pytest.importorskip("pynvml")
    try:
        energy.find_counter("cuda:0")
    except Unavailable as missing:
        pytest.skip(missing.message)
    a = torch.randn(4096, 4096, device="cuda:0")

    def run(steps: int) -> None:
        for _ in range(steps):
            a @ a

    run(1)  # starts cuBLAS
    torch.cuda.synchronize()
    begun = time.perf_counter()
    run(100)
    torch.cuda.synchronize()
    step_s = (time.perf_counter() - begun) / 100
    joules = energy.joules(run, "cuda:0")
    assert 10 < joules / step_s < 2000
