import os
import time
from typing import Any

import pytest
import torch
from fake_nvml import FakeNvml, play

from afftool.measure.time.conditions import Ticks, Watch, disturbances, read_ticks, uses_gpu
from afftool.nvml import Gpu

HERTZ = os.sysconf("SC_CLK_TCK")


def ticks(busy_s: float, own_s: float, *, stolen_s: float = 0.0, throttled_us: int = 0, taken: float = 0.0) -> Ticks:
    return Ticks(int(busy_s * HERTZ), int(stolen_s * HERTZ), int(own_s * HERTZ), throttled_us, taken)


def test_our_own_work_does_not_make_the_machine_busy() -> None:
    assert disturbances(ticks(0, 0), ticks(20, 20, taken=10), cores=2) == {}


def test_the_work_of_others_is_named_in_cores() -> None:
    found = disturbances(ticks(0, 0), ticks(15, 10, taken=10), cores=2)
    assert "0.5 of 2 cores" in found["busy machine"].text
    assert found["busy machine"].figure == 0.5


def test_a_core_that_others_keep_busy_is_no_less_of_a_disturbance_among_many() -> None:
    assert "busy machine" in disturbances(ticks(0, 0), ticks(13, 10, taken=10), cores=64)
    assert "busy machine" not in disturbances(ticks(0, 0), ticks(12, 10, taken=10), cores=64)
    assert "busy machine" in disturbances(ticks(0, 0), ticks(12, 10, taken=10), cores=2)


def test_stolen_time_and_a_quota_are_named() -> None:
    found = disturbances(ticks(0, 0), ticks(5, 5, stolen_s=1, throttled_us=2_000_000, taken=10), cores=2)
    assert set(found) == {"stolen time", "throttled processor"}
    assert "2 s" in found["throttled processor"].text


def test_without_proc_nothing_is_claimed() -> None:
    assert disturbances(None, None, cores=2) == {}


def test_the_ticks_of_this_process_grow_with_its_work() -> None:
    before = read_ticks([os.getpid()])
    if before is None:
        return  # no /proc on this system
    end = time.process_time() + 3 / HERTZ
    while time.process_time() < end:
        pass
    after = read_ticks([os.getpid()])
    assert after is not None
    assert after.own > before.own
    assert after.busy >= before.busy


def watched(
    monkeypatch: Any,
    nvml: FakeNvml,
    pids: list[int],
    *,
    parent_uses_gpu: bool = True,
    meanwhile: dict[int, int] | None = None,
) -> dict[str, str]:
    """What is found after ten seconds in which NVML's counters grew by so many nanoseconds."""
    play(monkeypatch, nvml)
    monkeypatch.setattr("afftool.measure.time.conditions.uses_gpu", lambda device: parent_uses_gpu)
    times = iter([100.0, 110.0])
    watch = Watch("cuda:0", pids, now=lambda: next(times))
    watch.look()
    for policy, grown in (meanwhile or {}).items():
        nvml.violations[policy] += grown
    return {name: one.text for name, one in watch.findings().items() if "GPU" in name}


def test_a_throttled_gpu_and_strangers_on_it_are_named(monkeypatch: Any) -> None:
    found = watched(monkeypatch, FakeNvml(reasons=0x20 | 0x4, processes=3), [])
    assert "power cap, temperature" in found["throttled GPU"]
    assert found["shared GPU"].startswith("2 more processes")


COUNTERS = {0: 7_000_000_000, 1: 0, 2: 0, 3: 0, 4: 110_000_000_000, 5: 0}
"""Nanoseconds since the driver was loaded: of power, temperature, sync boost, the board, idling, reliability."""


def test_throttling_is_what_nvml_counted_meanwhile_though_at_every_look_the_gpu_was_idle(monkeypatch: Any) -> None:
    nvml = FakeNvml(reasons=0x1, violations=dict(COUNTERS))
    found = watched(monkeypatch, nvml, [], meanwhile={0: 2_500_000_000, 3: 300_000_000})
    assert "(power cap for 25% of the time, board limit for 3% of the time)" in found["throttled GPU"]


def test_what_was_counted_before_and_while_the_gpu_had_nothing_to_do_is_no_throttling(monkeypatch: Any) -> None:
    nvml = FakeNvml(reasons=0x1, violations=dict(COUNTERS))
    assert watched(monkeypatch, nvml, [], meanwhile={0: 50_000_000, 4: 9_000_000_000}) == {}


def test_where_a_counter_says_how_long_it_was_a_moment_s_look_does_not_overrule_it(monkeypatch: Any) -> None:
    nvml = FakeNvml(reasons=0x4, violations=dict(COUNTERS))
    assert watched(monkeypatch, nvml, [], meanwhile={0: 50_000_000}) == {}


def test_a_counter_that_stands_still_does_not_overrule_what_the_gpu_says_itself(monkeypatch: Any) -> None:
    """NVML's manual: "violation for thermal capping is not supported at this time"."""
    nvml = FakeNvml(reasons=0x20, violations=dict(COUNTERS))
    found = watched(monkeypatch, nvml, [], meanwhile={0: 2_500_000_000})
    assert "(power cap for 25% of the time, temperature)" in found["throttled GPU"]


def test_an_idle_clock_and_our_own_processes_are_no_disturbance(monkeypatch: Any) -> None:
    assert watched(monkeypatch, FakeNvml(reasons=0x1, processes=3), [10, 11]) == {}


def test_a_parent_that_only_waits_is_not_one_of_ours_on_the_gpu(monkeypatch: Any) -> None:
    found = watched(monkeypatch, FakeNvml(processes=3), [10, 11], parent_uses_gpu=False)
    assert found["shared GPU"].startswith("1 more processes")
    assert watched(monkeypatch, FakeNvml(processes=1), [], parent_uses_gpu=False) == {}


def test_a_cpu_has_no_gpu_to_watch() -> None:
    assert Gpu.of("cpu") is None
    assert not uses_gpu("cpu")


@pytest.mark.gpu
def test_a_real_gpu_counts_what_held_it_back_and_its_counters_never_fall() -> None:
    pytest.importorskip("pynvml")
    gpu = Gpu.of("cuda:0")
    before = gpu.throttled_ns() if gpu else {}
    if gpu is None or not before:
        pytest.skip("this GPU counts no throttling")
    watch = Watch("cuda:0", [])
    a = torch.randn(2048, 2048, device="cuda:0")
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        for _ in range(20):
            a @ a
        torch.cuda.synchronize()
        watch.look()
    after = gpu.throttled_ns()
    assert set(after) == set(before)
    assert all(after[cause] >= before[cause] for cause in before)
    assert all(one.text for one in watch.findings().values())


@pytest.mark.gpu
def test_a_real_gpu_tells_the_clocks_it_can_be_locked_at() -> None:
    pytest.importorskip("pynvml")
    gpu = Gpu.of("cuda:0")
    clocks = gpu.clocks_mhz() if gpu else []
    if gpu is None or not clocks:
        pytest.skip("this GPU does not tell its clocks")
    assert clocks == sorted(set(clocks))
    assert clocks[-1] <= (gpu.max_clock_mhz or clocks[-1])
