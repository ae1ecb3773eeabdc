"""Scripted and traced modules take no hooks of Python's; they are counted, timed and watched like any other."""

import pytest
import scripted_fusions
import torch
from scripted_fusions import Gate
from torch import nn

from afftool.backends.workload import Workload
from afftool.bench import Options, bench
from afftool.build import build_case
from afftool.copying import meta_copy, real_copy
from afftool.measure.cost.count import count, count_module
from afftool.measure.memory import peak as memory
from afftool.spec import CaseSpec, FusionSpec, Mode

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

WHOLE = ("scripted", "traced")
HOLDING = ("holds_scripted", "holds_traced")
N, C, H, W = 2, 8, 6, 5
CONVOLUTION = N * C * C * H * W
"""Multiply-adds of a 1x1 convolution from C channels to C: one for each output element and input channel."""


def case(name: str, mode: Mode = "infer") -> CaseSpec:
    fusion = FusionSpec.parse(f"scripted_fusions:{name}")
    return CaseSpec(fusion=fusion, channels=C, size=(H, W), batch=N, mode=mode)


@pytest.mark.parametrize("name", WHOLE)
def test_a_module_that_is_scripted_or_traced_has_the_multiply_adds_of_its_formula(name: str) -> None:
    infer, train = count(case(name)), count(case(name, "train"))
    assert (infer.macs, infer.backward_macs) == (CONVOLUTION, None)
    assert (train.macs, train.backward_macs) == (CONVOLUTION, 2 * CONVOLUTION)
    assert infer.uncounted_ops == train.uncounted_ops == {}
    assert infer.params == infer.live_params == C * C + C + 2 * C
    assert infer.counted_on == train.counted_on == "meta"
    assert {row.module for row in train.rows if row.flops} == {""}


@pytest.mark.parametrize("name", HOLDING)
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_what_runs_inside_a_scripted_part_is_put_down_to_it_in_both_directions(name: str, mode: Mode) -> None:
    reading = count(case(name, mode))
    found = {(row.module, row.direction): row.macs for row in reading.rows if row.macs}
    expected = {("before", "forward"): CONVOLUTION, ("gate", "forward"): CONVOLUTION}
    if mode == "train":
        expected |= {(path, "backward"): 2 * CONVOLUTION for path in ("before", "gate")}
    assert found == expected
    assert reading.uncounted_ops == {}
    assert reading.live_params == reading.params == 2 * (C * C + C) + 2 * C


def test_a_traced_part_costs_what_the_module_it_was_traced_from_costs() -> None:
    traced, plain = count(case("holds_traced")), count(case("holds_plain"))
    assert (traced.macs, traced.flops, traced.moved_bytes) == (plain.macs, plain.flops, plain.moved_bytes)


def test_a_frozen_module_is_counted_with_its_weights_as_constants() -> None:
    reading = count(case("frozen"))
    assert (reading.params, reading.macs, reading.uncounted_ops) == (0, CONVOLUTION, {})


@pytest.mark.parametrize("name", [*WHOLE, *HOLDING])
def test_a_count_is_the_same_after_its_compiler_has_learnt_from_runs(name: str) -> None:
    module = getattr(scripted_fusions, name)(C)
    inputs = [torch.randn(N, C, H, W) for _ in range(2)]
    before = count_module(module, inputs, mode="train")
    for _ in range(4):
        module(*inputs).sum().backward()
    module.zero_grad(set_to_none=True)
    after = count_module(module, inputs, mode="train")
    assert after == before
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("name", [*WHOLE, *HOLDING])
def test_a_copy_has_parameters_of_its_own(name: str) -> None:
    module = getattr(scripted_fusions, name)(C)
    inputs = [torch.randn(N, C, H, W) for _ in range(2)]
    copied, on_meta = real_copy(module), meta_copy(module)
    names = [name for name, _ in module.named_parameters()]
    for twin in (copied, on_meta):
        assert [name for name, _ in twin.named_parameters()] == names
        assert all(isinstance(p, nn.Parameter) and p.is_leaf and p.requires_grad for p in twin.parameters())
    assert {x.device.type for x in (*on_meta.parameters(), *on_meta.buffers())} == {"meta"}
    assert torch.equal(module.eval()(*inputs), copied.eval()(*inputs))
    copied(*inputs).sum().backward()
    assert all(p.grad is not None for p in copied.parameters())
    assert all(p.grad is None for p in module.parameters())


def test_a_copy_shares_what_the_module_shared_and_keeps_what_was_frozen() -> None:
    gate = Gate(C)
    gate.norm.weight = gate.norm.bias
    gate.conv.bias.requires_grad_(False)
    copied = dict(real_copy(torch.jit.script(gate)).named_parameters(remove_duplicate=False))
    assert copied["norm.weight"] is copied["norm.bias"]
    assert [name for name, p in copied.items() if not p.requires_grad] == ["conv.bias"]


@pytest.mark.parametrize("name", [*WHOLE, *HOLDING])
def test_memory_of_a_training_step_is_told_apart(name: str) -> None:
    spec = case(name, "train")
    reading = memory.measure(build_case(spec))
    params = count(spec).params
    assert reading.param_bytes == reading.gradient_bytes == reading.optimizer_bytes == 4 * params
    assert reading.saved_by_module_bytes
    assert set(reading.saved_by_module_bytes) <= {"", "before", "gate"}
    assert reading.peak_parts_bytes
    assert reading.peak_parts_bytes["outputs"] >= 4 * N * C * H * W


@pytest.mark.parametrize("name", [*WHOLE, *HOLDING])
def test_a_training_step_leaves_the_case_as_it_was(name: str) -> None:
    built = build_case(case(name, "train"))
    before = [p.clone() for p in built.module.parameters()]
    Workload(built).run(2)
    assert all(map(torch.equal, before, built.module.parameters()))
    assert all(p.grad is None for p in built.module.parameters())


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_bench_measures_them_all(mode: Mode) -> None:
    cases = [case(name, mode) for name in (*WHOLE, *HOLDING)]
    records = list(bench(cases, Options(budget_s=0.2, baseline=None, allocator="kept")))
    assert [(record.status, record.reason) for record in records] == [("ok", None)] * len(cases)
    assert all(record.macs and record.latency_ms and record.peak_bytes for record in records)
