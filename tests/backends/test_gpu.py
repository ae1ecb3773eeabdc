"""What only a GPU can show. Run with `pytest -m gpu`."""

import dataclasses
import statistics

import pytest
import torch

from afftool import backends, catalog
from afftool.backends import Preparation, Prepared, cudagraph, eager
from afftool.backends.capture import clear_workspaces
from afftool.backends.getting_ready import wait
from afftool.backends.outputs import Outputs, compare
from afftool.backends.workload import Workload, in_double
from afftool.bench import Options, bench
from afftool.bench.entry import EagerOutputs
from afftool.build import build_case
from afftool.errors import Unavailable
from afftool.measure.memory.phases import private_pools
from afftool.measure.time.caches import flusher, last_level_bytes
from afftool.measure.time.contestant import CudaClock, Timed, clock_for
from afftool.spec import CaseSpec, FusionSpec

pytestmark = pytest.mark.gpu

CASE = CaseSpec(fusion=FusionSpec.parse("aff"), channels=32, size=(16, 16), batch=4, device="cuda:0")


def test_cuda_events_read_the_gpus_time_and_not_the_callers() -> None:
    clock = clock_for("cuda:0")
    assert isinstance(clock, CudaClock)
    assert 0 < clock.overhead_s < 1e-3
    a = torch.randn(4096, 4096, device="cuda:0")
    a @ a  # starts cuBLAS, for which the host waits
    torch.cuda.synchronize()
    start = clock.mark()
    for _ in range(20):
        a @ a
    queued = clock.now()
    seconds = clock.seconds(start, clock.mark())
    assert clock.now() - queued > 0.5 * seconds
    assert 20 * 2 * 4096**3 / seconds < 1e16


MODES = ("infer", "train")
COMBINATIONS = [
    *((name, mode, "float32") for name in catalog.BACKENDS for mode in MODES),
    *(
        (name, mode, dtype)
        for name in ("eager", "cudagraph", "compile")
        for mode in MODES
        for dtype in ("bfloat16", "float16")
    ),
]


@pytest.mark.parametrize(("name", "mode", "dtype"), COMBINATIONS)
def test_every_backend_agrees_with_eager(name: str, mode: str, dtype: str) -> None:
    case = build_case(dataclasses.replace(CASE, mode=mode, dtype=dtype))
    prepared = backends.load(name)(case)
    try:
        EagerOutputs(case).judged(prepared)
        prepared.run(10)
        before = prepared.compilations()
        prepared.run(10)
        assert prepared.compilations() == before
        assert EagerOutputs(case).judged(prepared)["error_vs_eager"] < (1e-2 if dtype == "float32" else 1e-1)
    finally:
        prepared.close()


@pytest.mark.parametrize("mode", MODES)
def test_reduce_overhead_replays_cuda_graphs_and_says_how_many(mode: str) -> None:
    prepared = backends.load("compile-reduce-overhead")(build_case(dataclasses.replace(CASE, mode=mode)))
    assert prepared.lacks is None
    assert (prepared.preparation.cuda_graphs or 0) >= (1 if mode == "infer" else 2)
    assert prepared.preparation.skipped_graphs == 0
    prepared.close()


def test_a_compiled_step_without_a_cuda_graph_says_so_and_why() -> None:
    """A step that writes to its input may not be a CUDA graph, whose inputs are copies."""

    class Writes(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.add_(y).relu()

    case = dataclasses.replace(build_case(CASE), module=Writes())
    prepared = backends.load("compile-reduce-overhead")(case)
    assert prepared.preparation.cuda_graphs == 0
    assert "no CUDA graph in a step" in str(prepared.lacks)
    prepared.close()


def test_a_captured_training_step_has_three_parts_that_make_the_step() -> None:
    case = build_case(dataclasses.replace(CASE, mode="train"))
    prepared = cudagraph.prepare(case)
    assert list(prepared.parts) == ["forward", "backward", "optimizer"]
    parts = Timed(prepared, clock_for("cuda:0")).split(5)
    assert all(seconds > 0 for seconds in parts.values())
    assert prepared.preparation.capture_s
    assert compare(prepared.outputs(0), Workload(case).outputs(0), lambda: in_double(case, 0)) < 1e-2
    prepared.close()


def test_replays_draw_the_random_numbers_that_eager_draws() -> None:
    case = build_case(dataclasses.replace(CASE, mode="train"))
    noisy = dataclasses.replace(case, module=torch.nn.Sequential())
    noisy.module.forward = lambda x, y: torch.nn.functional.dropout(x + y)  # type: ignore[method-assign]
    prepared = cudagraph.prepare(noisy)
    assert compare(prepared.outputs(1), eager.prepare(noisy).outputs(1), lambda: None) == 0.0


def test_what_waits_for_the_device_cannot_be_captured_and_says_so() -> None:
    case = build_case(CASE)
    case.module.forward = lambda x, y: x * (x + y).sum().item()  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="not permitted when stream is capturing"):
        cudagraph.prepare(case)
    torch.cuda.synchronize()


@pytest.mark.parametrize("mode", MODES)
def test_a_failed_capture_leaves_no_stream_no_pool_and_no_generator_behind(mode: str) -> None:
    case = build_case(dataclasses.replace(CASE, mode=mode, size=(64, 64), batch=64))
    case.module.forward = lambda x, y: x * (x * y).exp().sum().item()  # type: ignore[method-assign]
    torch.cuda.empty_cache()
    pools, _ = private_pools(torch.device("cuda:0"))
    with pytest.raises(Unavailable):
        cudagraph.prepare(case)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.cuda.empty_cache()
    assert private_pools(torch.device("cuda:0"))[0] <= pools
    torch.nn.functional.dropout(torch.ones(8, device="cuda:0"))
    prepared = cudagraph.prepare(build_case(dataclasses.replace(CASE, mode=mode)))
    prepared.run(2)
    prepared.close()


def test_a_captured_matmul_outlives_the_workspaces_that_others_clear() -> None:
    case = build_case(CASE)
    module = torch.nn.Sequential()
    a = torch.randn(256, 8192, device="cuda:0")  # long sums in few tiles: cuBLAS splits them over its workspace
    module.forward = lambda x, y: a @ a.t()  # type: ignore[method-assign]
    given = dataclasses.replace(case, module=module)
    prepared = cudagraph.prepare(given)
    expected = prepared.outputs(0).kinds["output"]["0"]
    clear_workspaces()
    torch.cuda.empty_cache()
    others = [torch.zeros(1 << 20, device="cuda:0") for _ in range(32)]
    assert torch.equal(prepared.outputs(0).kinds["output"]["0"], expected)
    assert not any(other.any() for other in others)
    prepared.close()


def test_closing_a_captured_case_gives_its_pool_back() -> None:
    case = build_case(dataclasses.replace(CASE, size=(64, 64), batch=64))
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    prepared = cudagraph.prepare(case)
    prepared.close()
    del prepared
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before + (8 << 20)


def test_a_flushed_cache_makes_a_small_step_slower() -> None:
    """Both steps start on an idle GPU, so that only where their data lies tells them apart."""
    assert last_level_bytes("cuda:0") >= 1 << 20
    data = torch.ones(last_level_bytes("cuda:0") // 4 // 4, device="cuda:0")  # a quarter of the cache

    def read_all(times: int) -> None:
        for _ in range(times):
            data.sum()

    prepared = Prepared(
        backend="eager",
        repeat=read_all,
        outputs=lambda seed: Outputs({}),
        preparation=Preparation(first_call_s=0.0),
    )
    clock = clock_for("cuda:0")
    idle = Timed(prepared, clock, lambda: wait("cuda:0"))
    cold = Timed(prepared, clock, flusher("cuda:0"))
    in_cache, in_memory = _medians(idle, cold, samples=200, steps=1)
    assert in_memory > in_cache


@pytest.mark.parametrize("name", ["eager", "cudagraph"])
def test_a_step_alone_in_a_cold_cache_takes_longer_than_one_of_many_in_a_warm_one(name: str) -> None:
    prepared = backends.load(name)(build_case(dataclasses.replace(CASE, size=(64, 64), batch=16)))
    try:
        clock = clock_for("cuda:0")
        warm, cold = _medians(Timed(prepared, clock), Timed(prepared, clock, flusher("cuda:0")), samples=30, steps=20)
        assert cold > warm
    finally:
        prepared.close()


def _medians(*contestants: Timed, samples: int, steps: int) -> list[float]:
    """The median time of a step of each, from samples taken in turns, the first few thrown away."""
    taken = [[timed.sample(steps).step_s for timed in contestants] for _ in range(samples + 5)][5:]
    return [statistics.median(times) for times in zip(*taken, strict=True)]


def test_a_bench_isolates_compiled_cases_and_gives_ratios() -> None:
    records = list(
        bench([CASE], Options(backends=("eager", "cudagraph"), measures=("latency", "memory"), budget_s=5.0))
    )
    assert {r.status for r in records} == {"ok"}
    assert {r.isolation for r in records} == {"process"}
    assert all(r.latency_ratio for r in records)


def test_a_case_too_large_for_the_gpu_is_out_of_memory_and_the_rest_goes_on() -> None:
    huge = dataclasses.replace(CASE, size=(4096, 4096), batch=64, channels=256)
    records = list(bench([huge, CASE], Options(measures=("latency",), budget_s=2.0, baseline=None)))
    assert [r.status for r in records] == ["oom", "ok"]
