"""The compilers for real, on modules of a few channels. Two tests pay for inductor; the others stop after dynamo."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_cuda
import pytest
import torch
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from afftool.backends import Prepared, eager, getting_ready
from afftool.backends import compile as compiled
from afftool.backends.outputs import compare
from afftool.backends.workload import Workload
from afftool.build import Case, build_case
from afftool.errors import Rejected, Unavailable
from afftool.spec import CaseSpec, FusionSpec


class Gate(nn.Module):
    """A fusion with everything a step can leave behind: weights, a batch norm, random numbers."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.norm(self.conv(x + y)))
        return self.dropout(gate * x + (1 - gate) * y)


class Drops(nn.Module):
    """Random numbers, with a weight before them; a kernel forward and hardly more back."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.weight * x + y, 0.5, self.training)


class Breaks(Gate):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = super().forward(x, y)
        torch._dynamo.graph_break()
        return z * 2


class CountsItsCalls(Gate):
    calls = 0

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(x, y) if self.calls < 1000 else x


def case_of(module: nn.Module, mode: str = "infer") -> Case:
    spec = CaseSpec(fusion=FusionSpec.parse("add"), channels=4, size=(5, 6), batch=3, mode=mode)  # type: ignore[arg-type]
    return Case(spec, module.train(mode == "train"), build_case(spec).inputs)


@pytest.fixture
def dynamo_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile for real, but without generating code."""

    def without_code(work: Workload, **options: Any) -> Callable[..., Any]:
        return torch.compile(compiled._own_code(work.module), backend="eager")

    monkeypatch.setattr(compiled, "_compile", without_code)
    monkeypatch.setattr(compiled, "_start_compiler", lambda device, mode: None)
    yield
    compiled.forget_compiled()


@pytest.mark.long
def test_inductor_agrees_with_eager_in_training_and_leaves_the_case_as_it_was() -> None:
    case = case_of(Gate(), "train")
    state = {name: value.clone() for name, value in case.module.state_dict().items()}
    prepared = compiled.prepare_default(case)
    try:
        expected = Workload(case).outputs(7)
        assert compare(prepared.outputs(7), expected, lambda: None) < 1e-5
        assert set(expected.kinds["parameter gradient"]) == {n for n, _ in case.module.named_parameters()}
        assert set(expected.kinds["input gradient"]) == {"0", "1"}
        assert "norm.running_mean" in expected.kinds["buffer"]
        prepared.run(3)
        assert set(prepared.parts) == {"forward", "backward", "optimizer"}
        preparation = prepared.preparation
        assert preparation.compile_cache == "cold"
        assert preparation.compile_s is not None
        assert 0 < preparation.compile_s <= preparation.first_call_s
        assert (preparation.graph_breaks, preparation.recompiles) == (0, 0)
        assert preparation.guards
        assert preparation.capture_s is None
        before = prepared.compilations()
        prepared.move()
        prepared.run(2)
        assert prepared.compilations() == before
        assert compare(prepared.outputs(7), expected, lambda: None) < 1e-5
    finally:
        prepared.close()
        compiled.forget_compiled()
    assert all(torch.equal(state[name], value) for name, value in case.module.state_dict().items())
    assert all(p.grad is None for p in case.module.parameters())
    assert all(x.grad is None and not x.requires_grad for x in case.inputs)


@pytest.mark.long
def test_inductor_draws_the_random_numbers_that_eager_draws() -> None:
    """In the outputs that are compared, which are compiled once more for that: hence so small a module."""
    case = case_of(Drops(), "train")
    prepared = compiled.prepare_default(case)
    try:
        expected = Workload(case).outputs(7)
        assert any((value == 0).any() for value in expected.kinds["output"].values())
        assert compare(prepared.outputs(7), expected, lambda: None) < 1e-5
        assert set(expected.kinds["parameter gradient"]) == {"weight"}
        assert set(expected.kinds["input gradient"]) == {"0", "1"}
        before = prepared.compilations()
        prepared.run(3)
        assert prepared.compilations() == before
    finally:
        prepared.close()
        compiled.forget_compiled()


@pytest.mark.usefixtures("dynamo_only")
def test_a_graph_break_counts_once_and_for_every_variant_that_has_it() -> None:
    for _ in range(2):
        assert compiled.prepare_default(case_of(Breaks())).preparation.graph_breaks == 1
    assert compiled.prepare_default(case_of(Gate())).preparation.graph_breaks == 0


class Recorded(Gate):
    """What inductor makes of a module on CUDA, `graphs` of it CUDA graphs and for the rest a reason why not."""

    def __init__(self, graphs: int, reasons: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.graphs = graphs
        self.reasons = reasons


@pytest.fixture
def on_a_made_up_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[Recorded], Prepared]:
    """`compile-reduce-overhead` of a module as if inductor had made of it what it says."""
    fake_cuda.installed(monkeypatch)
    monkeypatch.setattr(compiled, "check_compiler", lambda device: None)
    monkeypatch.setattr(compiled, "_start_compiler", lambda device, mode: None)
    metrics: list[Any] = []
    monkeypatch.setattr(torch._dynamo.utils, "get_compilation_metrics", lambda: metrics)

    def recorded(work: Workload, **options: Any) -> Callable[..., Any]:
        module, first = work.module, True
        assert isinstance(module, Recorded)

        def forward(*inputs: torch.Tensor) -> torch.Tensor:
            nonlocal first
            for reason in module.reasons if first else ():
                torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] += 1
                metrics.append(SimpleNamespace(start_time_us=None, guard_count=0, cudagraph_skip_reason=reason))
                metrics[-1].start_time_us = 2**62
            first = False
            for _ in range(module.graphs):
                torch.cuda.CUDAGraph().replay()
            return inputs[0]

        return forward

    def prepare(module: Recorded) -> Prepared:
        case = case_of(module)
        return compiled.prepare_reduce_overhead(replace(case, spec=replace(case.spec, device="cuda:0")))

    monkeypatch.setattr(compiled, "_compile", recorded)
    return prepare


def test_the_cuda_graphs_of_a_step_are_counted(on_a_made_up_gpu: Callable[[Recorded], Prepared]) -> None:
    replay = torch.cuda.CUDAGraph.replay
    prepared = on_a_made_up_gpu(Recorded(graphs=2))
    assert (prepared.preparation.cuda_graphs, prepared.preparation.skipped_graphs) == (2, 0)
    assert prepared.lacks is None
    assert torch.cuda.CUDAGraph.replay is replay


def test_a_row_without_a_cuda_graph_says_so_and_why(on_a_made_up_gpu: Callable[[Recorded], Prepared]) -> None:
    reason = "skipping cudagraphs due to skipping cudagraphs due to cpu device (x). Found from : \n line 3"
    prepared = on_a_made_up_gpu(Recorded(graphs=0, reasons=(reason, reason)))
    assert (prepared.preparation.cuda_graphs, prepared.preparation.skipped_graphs) == (0, 2)
    assert prepared.lacks == "no CUDA graph in a step: inductor made none (cpu device (x))"


def test_a_graph_that_inductor_passes_over_in_silence_is_missed_too(
    on_a_made_up_gpu: Callable[[Recorded], Prepared],
) -> None:
    assert on_a_made_up_gpu(Recorded(graphs=0)).lacks == "no CUDA graph in a step: inductor made none"


def test_a_row_with_cuda_graphs_in_part_says_so(on_a_made_up_gpu: Callable[[Recorded], Prepared]) -> None:
    prepared = on_a_made_up_gpu(Recorded(graphs=1, reasons=("mutated inputs (2 instances)",)))
    assert prepared.preparation.skipped_graphs == 1
    assert "left 1 of its graphs without one (mutated inputs (2 instances))" in str(prepared.lacks)


@pytest.mark.usefixtures("dynamo_only")
def test_without_cuda_there_are_no_cuda_graphs_to_miss() -> None:
    prepared = compiled.prepare_max_autotune(case_of(Gate()))
    assert (prepared.preparation.cuda_graphs, prepared.preparation.skipped_graphs) == (None, None)
    assert prepared.lacks is None


@pytest.mark.usefixtures("dynamo_only")
def test_what_compiles_in_every_step_is_rejected() -> None:
    with pytest.raises(Rejected, match="compiled again in every step"):
        compiled.prepare_default(case_of(CountsItsCalls()))


@pytest.mark.usefixtures("dynamo_only")
def test_many_variants_of_one_class_all_stay_compiled() -> None:
    prepared = [compiled.prepare_default(case_of(Gate())) for _ in range(12)]
    before = compiled.compilations()
    for one in prepared:
        one.run(2)
    assert compiled.compilations() == before


@pytest.mark.usefixtures("dynamo_only")
def test_a_recompilation_is_counted_while_the_case_runs() -> None:
    class Switches(Gate):
        flag = False

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x if self.flag else super().forward(x, y)

    works: list[Workload] = []
    real = compiled._compile

    def keeping(work: Workload, **options: Any) -> Callable[..., Any]:
        works.append(work)
        return real(work, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "_compile", keeping)
        prepared = compiled.prepare_default(case_of(Switches()))
    before = prepared.compilations()
    prepared.run(1)
    assert prepared.compilations() == before
    works[0].module.flag = True  # type: ignore[assignment]
    prepared.run(1)
    assert prepared.compilations() > before


def test_reduce_overhead_is_unavailable_on_the_cpu() -> None:
    with pytest.raises(Unavailable, match="CUDA graphs") as caught:
        compiled.prepare_reduce_overhead(case_of(Gate()))
    assert caught.value.hint


def test_a_missing_compiler_is_unavailable_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "cpp_compiler", lambda: None)
    with pytest.raises(Unavailable, match=r"C\+\+ compiler") as caught:
        compiled.prepare_default(case_of(Gate()))
    assert "CXX" in str(caught.value.hint)


def test_a_missing_triton_is_unavailable_only_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "has_triton", lambda: False)
    compiled.check_compiler("cpu")
    with pytest.raises(Unavailable, match="triton"):
        compiled.check_compiler("cuda:0")


def test_eager_can_be_run_a_thousand_times_without_moving_a_weight() -> None:
    case = case_of(Gate(), "train")
    work = Workload(case)
    before = [p.detach().clone() for p in work.module.parameters()]
    work.run(1000)
    assert all(torch.equal(a, b) for a, b in zip(before, work.module.parameters(), strict=True))
    assert work.module.norm.running_mean.abs().sum() > 0  # type: ignore[union-attr]
    assert case.module.norm.running_mean.abs().sum() == 0  # type: ignore[union-attr]


def test_outputs_are_those_of_the_first_step_however_many_were_made() -> None:
    prepared = eager.prepare(case_of(Gate(dropout=0.5), "train"))
    first = prepared.outputs(3)
    prepared.run(5)
    assert compare(prepared.outputs(3), first, lambda: None) == 0.0


def tensors_of(work: Workload) -> list[torch.Tensor]:
    return [*work.module.parameters(), *work.module.buffers(), *work.inputs]


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("move", [Workload.move, Workload.move_tensors])
def test_moving_changes_addresses_and_nothing_else(move: Callable[[Workload], bool], mode: str) -> None:
    case = case_of(Gate().to(memory_format=torch.channels_last), mode)  # type: ignore[call-overload]
    work = Workload(case)
    before = [(t.clone(), t.data_ptr(), t.stride(), t.requires_grad) for t in tensors_of(work)]
    assert move(work)
    for tensor, (value, address, stride, needs_gradient) in zip(tensors_of(work), before, strict=True):
        assert torch.equal(tensor, value)
        assert tensor.data_ptr() != address
        assert (tensor.stride(), tensor.requires_grad) == (stride, needs_gradient)
    work.run(2)
    move(work)
    work.run(1)
    assert compare(work.outputs(3), Workload(case).outputs(3), lambda: None) == 0.0


def test_a_move_takes_the_module_along_unless_compiled_code_holds_on_to_it() -> None:
    work = Workload(case_of(Gate(), "train"))
    module = work.module
    work.move_tensors()
    assert work.module is module
    work.move()
    assert work.module is not module
    assert work.forward is work.module
    held = {id(p) for group in work.optimizer.param_groups for p in group["params"]}  # type: ignore[union-attr]
    assert held == {id(p) for p in work.module.parameters()}


def test_steps_run_in_inference_mode_however_they_are_called() -> None:
    seen = []

    class Looks(Gate):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            seen.append(torch.is_inference_mode_enabled())
            return x

    prepared = eager.prepare(case_of(Looks()))
    prepared.run(1)
    prepared.step()
    with prepared.mode():
        prepared.repeat(1)
    assert all(seen)


def test_a_parameterless_fusion_has_no_optimizer_part_and_its_inputs_get_gradients() -> None:
    case = build_case(CaseSpec(fusion=FusionSpec.parse("add"), channels=4, size=(5, 5), batch=2, mode="train"))
    work = Workload(case)
    assert set(work.parts) == {"forward", "backward"}
    gradients = work.outputs(0).kinds["input gradient"]
    assert torch.equal(gradients["0"], gradients["1"])


def test_the_steps_of_a_training_step_in_turn_are_the_step() -> None:
    case = case_of(Gate(), "train")
    one, other = Workload(case), Workload(case)
    one.run(2)
    for _ in range(2):
        for part in other.parts.values():
            part()
    for (name, a), (_, b) in zip(one.module.state_dict().items(), other.module.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    momentum = [work.optimizer.state_dict()["state"] for work in (one, other) if work.optimizer]
    assert torch.equal(momentum[0][0]["momentum_buffer"], momentum[1][0]["momentum_buffer"])


def test_only_what_exceeds_a_steady_step_is_compile_time(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([5.0, 1.5, 0.5, 0.25])
    compiled_so_far = 0
    compiling = iter([True, True, False, False])

    def one_step(run: Any, device: str) -> float:
        nonlocal compiled_so_far
        compiled_so_far += next(compiling)
        return next(taken)

    monkeypatch.setattr(getting_ready, "seconds", one_step)
    preparation = getting_ready.first_steps(lambda n: None, "cpu", lambda: compiled_so_far, captures=True)
    assert preparation.first_call_s == 5.0
    assert preparation.compile_s == (5.0 - 0.25) + (1.5 - 0.25)
    assert preparation.capture_s == 0.25
    assert preparation.recompiles == 1


@pytest.mark.parametrize("fails", [RuntimeError, KeyboardInterrupt])
def test_a_compilation_that_fails_leaves_nothing_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: type[BaseException]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    error = fails("no code for this")

    def compilation() -> None:
        with compiled._from_nothing():
            Path(os.environ["TORCHINDUCTOR_CACHE_DIR"], "half.cpp").touch()
            Path(default_cache_dir()).mkdir()
            raise error

    with pytest.raises(fails) as raised:
        compilation()
    assert raised.value is error
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == before
    assert list(tmp_path.rglob("half.cpp")) == []
    assert fails is KeyboardInterrupt or list(tmp_path.iterdir()) == []
    assert "kept at" not in caplog.text
