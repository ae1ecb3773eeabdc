"""What is the user's own is built again where it could not be copied, or would be copied wrongly."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
import uncopied

from afftool.backends.workload import Workload
from afftool.bench import Options, bench
from afftool.build import Case, build_case, build_on_meta, copy_of
from afftool.gate.exact import count_graph
from afftool.measure.cost.count import count
from afftool.measure.memory import peak as memory
from afftool.spec import CaseSpec, FusionSpec

UNCOPIED = ("OldWeightNorm", "Pruned", "NotALeaf", "Locked")
PLAIN = 2 * (uncopied.CHANNELS**2 + uncopied.CHANNELS)
"""Parameters of two 1x1 convolutions."""
PARAMS = dict.fromkeys(UNCOPIED, PLAIN) | {"OldWeightNorm": PLAIN + uncopied.CHANNELS}


def spec(name: str, **fields: Any) -> CaseSpec:
    given = {"channels": uncopied.CHANNELS, "size": (5, 4), "batch": 2} | fields
    return CaseSpec(fusion=FusionSpec.parse(f"uncopied:{name}"), **given)


@pytest.mark.parametrize("name", UNCOPIED)
def test_these_modules_cannot_be_copied(name: str) -> None:
    with pytest.raises((RuntimeError, TypeError)):
        copy.deepcopy(build_case(spec(name)).module)


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("name", UNCOPIED)
def test_what_cannot_be_copied_is_built_again_with_the_same_weights(name: str, mode: str) -> None:
    case = build_case(spec(name, mode=mode))
    again = copy_of(case)
    assert again is not case.module
    assert again.training == case.module.training == (mode == "train")
    ours, theirs = again.state_dict(), case.module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(
        torch.equal(ours[key], value) and ours[key].data_ptr() != value.data_ptr() for key, value in theirs.items()
    )
    assert torch.equal(again(*case.inputs), case.module(*case.inputs))


@pytest.mark.parametrize("name", UNCOPIED)
def test_what_cannot_be_copied_is_counted_measured_and_trained(name: str) -> None:
    training = spec(name, mode="train")
    given = Options(measures=("cost", "memory"), baseline=None)
    [record] = bench([training], given)
    assert (record.status, record.reason) == ("ok", None)
    assert (record.params, record.live_params) == (PARAMS[name], PARAMS[name])
    assert record.param_bytes == 4 * PARAMS[name]
    assert count_graph(build_case(training)).graph_breaks == 0
    work = Workload(build_case(training))
    work.run(2)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in work.module.parameters())


def test_a_function_among_the_attributes_sees_the_module_it_is_in_and_not_the_one_it_came_from() -> None:
    case = build_case(spec("Closes", mode="train"))
    work = Workload(case)
    work.run(1)
    assert all(p.grad is not None for p in work.module.parameters())
    assert all(p.grad is None for p in case.module.parameters())


def test_weights_of_a_generator_that_no_seed_reaches_are_taken_over() -> None:
    case = build_case(spec("Lucky"))
    again = copy_of(case)
    assert torch.equal(again.a.weight, case.module.a.weight)
    assert torch.equal(again(*case.inputs), case.module(*case.inputs))


def test_what_can_be_built_once_only_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncopied.Once, "built", 0)
    case = build_case(spec("Once"))
    again = copy_of(case)
    assert again is not case.module
    assert torch.equal(again.a.weight, case.module.a.weight)


def test_a_module_that_is_not_what_its_spec_gives_is_copied_as_it_is() -> None:
    case = build_case(spec("Fuses"))
    other = uncopied.Closes(uncopied.CHANNELS)
    other.both = torch.add
    assert isinstance(copy_of(dataclasses.replace(case, module=other)), uncopied.Closes)
    changed = build_case(spec("Fuses"))
    with torch.no_grad():
        changed.module.a.weight.add_(1)
    assert torch.equal(copy_of(changed).a.weight, changed.module.a.weight)


def test_the_copy_of_a_copy_in_another_dtype_and_layout_is_of_them_too() -> None:
    case = build_case(spec("OldWeightNorm", dtype="bfloat16", memory_format="channels_last"))
    weight = copy_of(case).b.weight
    assert weight.dtype == torch.bfloat16
    assert weight.stride() == case.module.b.weight.stride()


@pytest.mark.parametrize("name", UNCOPIED)
def test_it_is_built_again_where_gradients_are_off_as_well(name: str) -> None:
    case = build_case(spec(name))
    for off in (torch.no_grad(), torch.inference_mode()):
        with off:
            again = copy_of(case)
        assert [p.requires_grad for p in again.parameters()] == [True] * len([*case.module.parameters()])
    assert count_graph(case).graph_breaks == 0


def test_building_again_leaves_the_random_state() -> None:
    case = build_case(spec("OldWeightNorm"))
    before = torch.get_rng_state()
    copy_of(case)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_can_neither_be_copied_nor_be_built_on_the_meta_device_is_moved_there() -> None:
    case: Case = build_on_meta(spec("NeedsValues"))
    assert {p.device.type for p in case.module.parameters()} == {"meta"}
    assert case.module(*case.inputs).shape == (2, uncopied.CHANNELS, 5, 4)
    assert count(spec("NeedsValues")).counted_on == "meta"


def test_memory_is_the_same_built_again_or_copied() -> None:
    case = build_case(spec("Fuses", mode="train"))
    again = memory.measure(case)
    copied = memory.measure(
        dataclasses.replace(case, spec=dataclasses.replace(case.spec, fusion=FusionSpec.parse("add")))
    )
    assert (again.peak_bytes, again.saved_bytes) == (copied.peak_bytes, copied.saved_bytes)
    assert again.peak_parts_bytes == copied.peak_parts_bytes
