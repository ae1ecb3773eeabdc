"""Layers that learn their widths at the first call have their weights wherever a case is built."""

from typing import Any

import pytest
import torch
import uncopied
from torch.nn.parameter import is_lazy

from afftool.backends.workload import Workload
from afftool.bench import Options, bench
from afftool.build import build_case, check_buildable, copy_of
from afftool.errors import LoadError
from afftool.gate.exact import read_exact
from afftool.lazy import settle
from afftool.measure.cost.count import count
from afftool.spec import CaseSpec, FusionSpec, HostSpec
from afftool.study.network import build_network, probe

N, C, H, W = 2, 4, 6, 5
PARAMS = (2 * C * 3 + 3) + 2 * 3 + (3 * C + C)
MACS = N * H * W * (2 * C * 3 + 3 * C)
NET = HostSpec.parse("uncopied:LazyNet")


def spec(name: str, **fields: Any) -> CaseSpec:
    given = {"channels": C, "size": (H, W), "batch": N} | fields
    return CaseSpec(fusion=FusionSpec.parse(f"uncopied:{name}"), **given)


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_a_lazy_module_has_the_parameters_and_multiply_adds_of_its_formula(mode: str) -> None:
    reading = count(spec("Lazy", mode=mode))
    assert (reading.params, reading.live_params, reading.macs) == (PARAMS, PARAMS, MACS)
    assert reading.backward_macs == (2 * MACS if mode == "train" else None)
    assert reading.counted_on == "meta"


def test_a_layer_may_be_as_wide_as_the_map_is_large() -> None:
    assert count(spec("LazyLinear")).params == C * H * W * C + C
    assert count(spec("LazyLinear", size=(3, 3))).params == C * 9 * C + C


@pytest.mark.parametrize("name", ["Lazy", "LazyLinear", "LazyAside"])
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_a_lazy_module_is_benched_like_any_other(name: str, mode: str) -> None:
    [record] = bench([spec(name, mode=mode)], Options(measures=("cost", "memory"), baseline=None))
    assert (record.status, record.reason) == ("ok", None)
    assert record.param_bytes == 4 * (record.params or 0) > 0


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_dry_call_moves_no_statistics_and_no_flags(mode: str, device: str) -> None:
    module = build_case(spec("Lazy", mode=mode, device=device)).module
    assert not any(is_lazy(t) for t in (*module.parameters(), *module.buffers()))
    assert {part.training for part in module.modules()} == {mode == "train"}
    assert {p.device.type for p in module.parameters()} == {device}
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    if device == "cpu":
        assert module.norm.running_mean.tolist() == [0, 0, 0]
        assert module.norm.running_var.tolist() == [1, 1, 1]
        assert module.norm.num_batches_tracked.item() == 0


def test_a_layer_that_is_called_in_training_alone_gets_its_weights_and_no_statistics() -> None:
    module = build_case(spec("LazyAside")).module
    for norm in (module.norm, module.aside):
        assert norm.running_mean.abs().sum() == 0
        assert norm.num_batches_tracked.item() == 0
    assert not module.training


def test_flags_that_a_constructor_set_survive_the_dry_call() -> None:
    module = uncopied.Lazy(C)
    module.norm.eval()
    settle(module, [torch.zeros(N, C, H, W)] * 2)
    assert (module.training, module.norm.training, module.excite.training) == (True, False, True)


def test_the_dry_call_changes_neither_inputs_nor_the_random_state() -> None:
    before = torch.get_rng_state()
    lazy, plain = build_case(spec("Lazy")), build_case(spec("Fuses"))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(lazy.inputs[0], build_case(spec("Lazy")).inputs[0])
    assert lazy.inputs[0].shape == plain.inputs[0].shape


def test_the_same_seed_gives_the_same_lazy_weights_and_another_seed_others() -> None:
    one, other = build_case(spec("Lazy")), build_case(spec("Lazy", seed=1))
    assert torch.equal(copy_of(one).squeeze.weight, one.module.squeeze.weight)
    assert torch.equal(build_case(spec("Lazy")).module.excite.weight, one.module.excite.weight)
    assert not torch.equal(other.module.squeeze.weight, one.module.squeeze.weight)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lazy_weights_have_the_dtype_and_the_layout_of_the_case(dtype: str) -> None:
    case = build_case(spec("Lazy", dtype=dtype, memory_format="channels_last"))
    assert {p.dtype for p in case.module.parameters()} == {getattr(torch, dtype)}
    assert case.module.excite.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_lazy_layer_that_no_call_reaches_is_named() -> None:
    with pytest.raises(LoadError, match="no call reaches: extra"):
        build_case(spec("NeverCalled"))


def test_a_dry_call_that_fails_says_on_what_and_why() -> None:
    with pytest.raises(LoadError, match="the call that gives them their weights fails: RuntimeError") as failed:
        build_case(spec("Narrow", size=(1, 1)))
    assert "(2, 4, 1, 1)" in str(failed.value.hint)


def test_a_module_that_needs_larger_maps_than_one_position_is_not_refused_beforehand() -> None:
    check_buildable([spec("Narrow")])
    assert count(spec("Narrow", size=(6, 6))).params == PARAMS


def test_the_gate_reads_a_lazy_module_and_gives_each_side_the_same_numbers() -> None:
    reading = read_exact(spec("Lazy"), ["macs", "peak_bytes", "saved_bytes", "graph_breaks"])
    assert (reading.values["params"], reading.values["macs"]) == (PARAMS, MACS)
    assert reading.values["graph_breaks"] == 0
    assert reading.values["saved_bytes"] > 0
    assert reading.unread == {}


def test_a_host_with_lazy_layers_and_lazy_fusions_is_counted_and_trained() -> None:
    case = spec("Lazy", host=NET, channels=None, size=(32, 32), mode="train")
    fusion = (2 * 8 * 3 + 3) + 2 * 3 + (3 * 8 + 8)
    assert count(case).params == (3 * 8 * 9 + 8) + (8 * 8 + 8) + (8 * 10 + 10) + 2 * fusion
    work = Workload(build_case(case))
    work.run(1)
    assert all(p.grad is not None for p in work.module.parameters())


def network(fusion: str, host: HostSpec = NET, **how: Any) -> Any:
    return build_network(host, FusionSpec.parse(fusion), size=(32, 32), **{"seed": 3} | how)


def test_a_study_builds_lazy_layers_by_seed_and_name_whatever_fusion_stands_beside() -> None:
    lazy, plain, again, other = (
        network("uncopied:Lazy"), network("add"), network("uncopied:Lazy"), network("uncopied:Lazy", seed=4)
    )  # fmt: skip
    assert lazy.host_start() == plain.host_start()
    assert lazy.module.state_dict().keys() == again.module.state_dict().keys()
    assert all(torch.equal(v, again.module.state_dict()[k]) for k, v in lazy.module.state_dict().items())
    assert not torch.equal(lazy.module.stem.weight, other.module.stem.weight)
    assert not torch.equal(lazy.module.first.squeeze.weight, lazy.module.second.squeeze.weight)
    output, fused = probe(lazy, torch.rand(2, 3, 32, 32))
    assert (tuple(output.shape), fused) == ((2, 10), 2)


def test_a_lazy_fusion_is_trained_in_a_host_of_ours_too() -> None:
    built = network("uncopied:Lazy", HostSpec.parse("resnet:b=1:classes=10"), init="kaiming")
    probe(built, torch.rand(2, 3, 32, 32))
    assert all(
        fused.squeeze.weight.std() > 0 and fused.squeeze.bias.abs().sum() == 0 for fused in built.fusions.values()
    )
