"""The roofline: what bounds a row, the least time, and the file the ceilings are kept in. No torch is needed."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from afftool.errors import StoreError
from afftool.measure.ceilings.bounds import Bounds
from afftool.measure.ceilings.roofline import Ceilings, CeilingsFile, Demand, annotate, bound, demand
from afftool.record import Environment, Record

CEILINGS = Ceilings(
    device="cpu",
    bandwidths=((1_000, 100e9), (1_000_000, 40e9), (100_000_000, 10e9)),
    flops_per_s={"float32": 100e9, "bfloat16": 200e9, "float16": 1e9},
    launch_s=1e-6,
    graph_launch_s=1e-7,
    taken="2026-01-01T00:00:00+00:00",
)
ROW = Record(
    fusion="aff",
    backend="eager",
    channels=8,
    height=10,
    width=10,
    batch=2,
    params=100,
    flops=40_000,
    moved_bytes=64_000,
    launched_ops=12,
    latency_ms=0.1,
)


@pytest.mark.parametrize(
    ("todo", "by", "least_ms"),
    [
        (Demand(flops=10**9, moved_bytes=10**6, working_set=10**6, launches=10), "compute", 10.0),
        (Demand(flops=10**6, moved_bytes=4 * 10**8, working_set=10**6, launches=10), "memory", 10.0),
        (Demand(flops=10**6, moved_bytes=10**6, working_set=10**6, launches=10_000), "launch", 10.0),
        (Demand(flops=0, moved_bytes=0, working_set=0, launches=10_000, in_graph=True), "launch", 1.0),
    ],
)
def test_the_slowest_of_the_three_is_the_bound(todo: Demand, by: str, least_ms: float) -> None:
    found = bound(todo, "float32", CEILINGS, latency_ms=20.0)
    assert found.by == by
    assert found.least_ms == pytest.approx(least_ms)
    assert found.least_share == pytest.approx(least_ms / 20)


def test_a_small_working_set_has_the_cache_s_bandwidth_and_a_huge_one_the_memory_s() -> None:
    sets = (10, 1_000, 10**6, 10**8, 10**12)
    assert [CEILINGS.bandwidth(n) for n in sets] == [100e9, 100e9, 40e9, 10e9, 10e9]


def test_between_two_sizes_that_were_measured_the_faster_one_is_the_ceiling() -> None:
    assert CEILINGS.bandwidth(1_001) == 100e9
    assert CEILINGS.bandwidth(10**7) == 40e9


def test_a_dip_at_a_small_size_does_not_lower_the_ceiling() -> None:
    dipped = dataclasses.replace(CEILINGS, bandwidths=((1_000, 1e9), (1_000_000, 40e9)))
    assert dipped.bandwidth(10) == 40e9


def test_a_dtype_that_is_emulated_may_always_be_widened() -> None:
    todo = Demand(flops=10**9, moved_bytes=0, working_set=0, launches=1)
    assert bound(todo, "float16", CEILINGS).least_ms == bound(todo, "float32", CEILINGS).least_ms
    assert bound(todo, "bfloat16", CEILINGS).least_ms == pytest.approx(5.0)


def test_eager_moves_the_operands_of_every_operator_and_a_compiler_only_what_goes_in_and_out() -> None:
    one_map = 2 * 8 * 10 * 10 * 4
    eager = demand(ROW)
    compiled = demand(dataclasses.replace(ROW, backend="compile-max-autotune"))
    assert eager == Demand(flops=40_000, moved_bytes=64_000, working_set=3 * one_map, launches=12)
    assert compiled == Demand(flops=40_000, moved_bytes=3 * one_map + 400, working_set=3 * one_map, launches=1)


def test_training_adds_backward_the_gradients_and_the_optimizer() -> None:
    one_map = 2 * 8 * 10 * 10 * 4
    row = dataclasses.replace(ROW, mode="train", backward_flops=80_000, backward_moved_bytes=128_000)
    eager = demand(row)
    compiled = demand(dataclasses.replace(row, backend="compile"))
    assert eager is not None
    assert compiled is not None
    assert eager.flops == 120_000
    assert eager.moved_bytes == 64_000 + 128_000 + 5 * 400
    assert compiled.moved_bytes == 6 * one_map + 2 * 400 + 5 * 400


def test_the_optimizer_moves_only_what_gets_a_gradient() -> None:
    row = dataclasses.replace(ROW, mode="train", backward_flops=0, backward_moved_bytes=0)
    eager = demand(dataclasses.replace(row, live_params=60))
    compiled = demand(dataclasses.replace(row, live_params=60, backend="compile"))
    assert eager is not None
    assert compiled is not None
    assert eager.moved_bytes == 64_000 + 5 * 240
    assert compiled.moved_bytes == 6 * 2 * 8 * 10 * 10 * 4 + 400 + 240 + 5 * 240


def test_after_emptied_caches_what_comes_from_outside_comes_at_main_memorys_rate() -> None:
    cold = demand(dataclasses.replace(ROW, cache="cold"))
    assert cold is not None
    outside = 3 * 2 * 8 * 10 * 10 * 4 + 400
    assert cold.cold_bytes == outside
    seconds = outside / 10e9 + (64_000 - outside) / CEILINGS.bandwidth(cold.working_set)
    free = dataclasses.replace(CEILINGS, launch_s=0.0)
    assert bound(cold, "float32", free).least_ms == pytest.approx(seconds * 1e3)
    assert demand(dataclasses.replace(ROW, cache="warm")) == dataclasses.replace(cold, cold_bytes=0)
    trained = demand(dataclasses.replace(ROW, cache="cold", mode="train", live_params=60, backend="compile"))
    assert trained is not None
    assert trained.cold_bytes == 6 * 2 * 8 * 10 * 10 * 4 + 400 + 240


def test_three_maps_are_read_where_three_are_fused_and_a_host_reads_an_image() -> None:
    three = demand(dataclasses.replace(ROW, fusion="aff:inputs=3"))
    host = demand(dataclasses.replace(ROW, host="resnet", channels=None, height=32, width=32))
    assert three is not None
    assert host is not None
    assert three.working_set == 4 * 2 * 8 * 10 * 10 * 4
    assert host.working_set == 2 * 3 * 32 * 32 * 4


def test_a_row_says_its_bound_its_least_time_and_the_share_reached() -> None:
    row = annotate(ROW, CEILINGS)
    assert row.bound == "launch"
    assert row.least_ms == pytest.approx(12e-3)
    assert row.least_share == pytest.approx(0.12)


@pytest.mark.parametrize(
    "row",
    [
        dataclasses.replace(ROW, latency_ms=None),
        dataclasses.replace(ROW, flops=None),
        dataclasses.replace(ROW, moved_bytes=None),
    ],
)
def test_a_row_that_was_not_timed_or_not_counted_says_nothing(row: Record) -> None:
    assert annotate(row, CEILINGS) == row


def test_without_a_calibration_a_row_says_nothing() -> None:
    assert annotate(ROW, None) is ROW


def test_ceilings_are_kept_beside_the_store_by_machine_and_kind_of_device(tmp_path: Path) -> None:
    store = tmp_path / "deep" / "runs.sqlite"
    assert CeilingsFile.beside(store).find("abc", "cpu") is None
    gpu = dataclasses.replace(CEILINGS, device="cuda:0", launch_s=3e-6)
    CeilingsFile.beside(store).keep("abc", CEILINGS).keep("abc", gpu)
    CeilingsFile.beside(store).keep("def", dataclasses.replace(CEILINGS, launch_s=9e-6))
    kept = CeilingsFile.beside(store)
    assert kept.path == tmp_path / "deep" / "ceilings.json"
    assert kept.find("abc", "cpu") == CEILINGS
    assert kept.find("abc", "cuda:3") == gpu
    assert kept.find("elsewhere", "cpu") is None
    assert [path.name for path in kept.path.parent.iterdir()] == ["ceilings.json"]


def test_a_calibration_with_another_number_of_threads_is_found_and_told_apart(tmp_path: Path) -> None:
    machine = Environment(afftool="1", python="3", cpu="Some CPU", cores=4, threads=4)
    alone = dataclasses.replace(machine, threads=1)
    kept = CeilingsFile.beside(tmp_path / "runs.sqlite").keep(alone.fingerprint, CEILINGS)
    assert kept.other_threads(machine, "cpu") == (1,)
    assert kept.other_threads(alone, "cpu") == ()
    assert kept.other_threads(machine, "cuda:0") == ()
    assert kept.other_threads(dataclasses.replace(machine, cpu="Another CPU"), "cpu") == ()
    bounds = Bounds.of(tmp_path / "runs.sqlite", machine, "cpu", ("latency",))
    assert (bounds.ceilings, bounds.others, bounds.measures) == (None, (1,), ("latency",))


def test_a_bench_of_latency_alone_counts_for_its_bound_and_keeps_the_counts_to_itself(tmp_path: Path) -> None:
    machine = Environment(afftool="1", python="3")
    CeilingsFile.beside(tmp_path / "runs.sqlite").keep(machine.fingerprint, CEILINGS)
    bounds = Bounds.of(tmp_path / "runs.sqlite", machine, "cpu", ("latency",))
    assert set(bounds.measures) == {"cost", "latency"}
    row = bounds.complete(dataclasses.replace(ROW, uncounted_ops={"aten.fft": 1}))
    assert (row.bound, row.flops, row.params, row.uncounted_ops) == ("launch", None, None, {"aten.fft": 1})
    both = Bounds.of(tmp_path / "runs.sqlite", machine, "cpu", ("cost", "latency"))
    assert both.complete(ROW).flops == ROW.flops
    assert Bounds.of(tmp_path / "runs.sqlite", machine, "cpu", ("memory",)).measures == ("memory",)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', json.dumps({"schema": 1, "machines": []})])
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "ceilings.json").write_text(text)
    with pytest.raises(StoreError, match="calibrate"):
        CeilingsFile.beside(tmp_path / "runs.sqlite").find("abc", "cpu")


def test_half_a_calibration_is_refused_too(tmp_path: Path) -> None:
    document = {"schema": 1, "machines": {"abc": {"cpu": {"device": "cpu"}}}}
    (tmp_path / "ceilings.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="damaged"):
        CeilingsFile.beside(tmp_path / "runs.sqlite").find("abc", "cpu")


def test_reading_a_roofline_imports_no_torch() -> None:
    code = "import sys, afftool.measure.ceilings.bounds; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
