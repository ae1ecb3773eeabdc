"""Calibration: that the best counts, that it ends, and that what comes out is a usable set of ceilings."""

import itertools

import pytest
import torch

from afftool.measure.ceilings import calibrate
from afftool.measure.ceilings.calibrate import _Timer, out_of_cache


def test_the_timer_keeps_the_best_sample_and_repeats_short_calls() -> None:
    calls = itertools.count()
    now = 0.0

    def run() -> None:
        nonlocal now
        now += 1e-4 * (5 if next(calls) % 7 else 1)  # one call in seven is five times faster

    best = _Timer(torch.device("cpu"), 0.05, lambda: now).best(run)
    assert 1e-4 <= best < 5e-4


def test_the_timer_makes_one_sample_of_a_call_that_takes_longer_than_its_share() -> None:
    made = itertools.count(1)
    now = 0.0

    def run() -> None:
        nonlocal now
        now += 3.0
        next(made)

    assert _Timer(torch.device("cpu"), 0.05, lambda: now).best(run) == 3.0
    assert next(made) <= 4


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
    assert 0 < found.launch_s < 1
    assert found.graph_launch_s is None


@pytest.mark.gpu
def test_a_gpu_launches_faster_from_a_graph_than_from_python() -> None:
    found = calibrate.calibrate("cuda:0")
    assert found.graph_launch_s is not None
    assert 0 < found.graph_launch_s < found.launch_s
    assert found.flops_per_s["bfloat16"] > found.flops_per_s["float32"] > 1e12
    assert found.bandwidths[-1][1] > 1e11
