"""What a row's record says of its values, and on how many inputs a backend has to be wrong to be refused."""

import dataclasses
from collections.abc import Collection

import pytest
import torch
from torch import nn

from afftool.backends import Prepared, eager
from afftool.backends.outputs import Outputs
from afftool.bench.entry import SEEDS, EagerOutputs, enter
from afftool.build import Case, build_case
from afftool.errors import Rejected
from afftool.measure.time.contestant import clock_for
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec

SPEC = CaseSpec(fusion=FusionSpec.parse("aff"), channels=8, size=(4, 4), batch=2, mode="train")


def wrong_on(case: Case, seeds: Collection[int], backend: str = "compile", add: float = 1.0) -> Prepared:
    """Eager under another name, one value of its output off on the inputs of these seeds."""
    prepared = eager.prepare(case)

    def outputs(seed: int) -> Outputs:
        kinds = prepared.outputs(seed).kinds
        wrong = kinds["output"]["0"].clone()
        wrong.view(-1)[3] += add if seed in seeds else 0.0
        return Outputs({**kinds, "output": {"0": wrong}})

    return dataclasses.replace(prepared, backend=backend, outputs=outputs)


def test_one_input_alone_refuses_nobody_and_its_differences_are_kept() -> None:
    case = build_case(SPEC)
    said = EagerOutputs(case).judged(wrong_on(case, [0]))
    elements = sum(t.numel() for tensors in EagerOutputs(case)._outputs.kinds.values() for t in tensors.values())
    assert said["differing_share"] == pytest.approx(1 / elements)
    assert said["error_vs_eager"] > 0.1
    assert 0 < said["rms_error_vs_eager"] < said["error_vs_eager"]


@pytest.mark.parametrize(("seeds", "blamed"), [(SEEDS, True), (SEEDS[:2], False)])
def test_the_compiler_is_blamed_where_all_inputs_show_it(seeds: tuple[int, ...], blamed: bool) -> None:
    case = build_case(SPEC)
    with pytest.raises(Rejected, match=f"differs from eager: output 0 by 1 .*; so on {len(seeds)} of 3 inputs") as told:
        EagerOutputs(case).judged(wrong_on(case, seeds))
    assert ("report the compiler's mistake to PyTorch" in str(told.value.hint)) == blamed
    assert "no time is kept for a wrong result" in str(told.value.hint)


def test_nobody_reports_to_pytorch_what_is_no_compiler() -> None:
    case = build_case(SPEC)
    with pytest.raises(Rejected) as told:
        EagerOutputs(case).judged(wrong_on(case, SEEDS, backend="cudagraph"))
    assert "PyTorch" not in str(told.value.hint)


def test_a_doubt_that_is_settled_leaves_the_backend_on_the_cases_own_inputs() -> None:
    case = build_case(SPEC)
    prepared = wrong_on(case, [0])
    EagerOutputs(case).judged(prepared)
    assert prepared.workload
    assert all(torch.equal(own, given) for own, given in zip(prepared.workload.inputs, case.inputs, strict=True))


def test_a_backend_that_gives_nan_where_eager_is_finite_is_refused_as_that() -> None:
    case = build_case(SPEC)
    with pytest.raises(Rejected, match="output 0 is infinite or NaN in 1 of 256 elements where eager's is finite"):
        EagerOutputs(case).judged(wrong_on(case, SEEDS, add=float("nan")))


class Overflows(nn.Module):
    """One of four values is an infinity, and its gradients are NaN."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        total = x + y
        return torch.cat([total[:, :6], total[:, 6:] / (total[:, 6:] * 0)], 1)


@pytest.mark.parametrize("measures", [("latency",), ("memory",)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("mode", "share"), [("infer", 0.25), ("train", 0.25)])
def test_the_record_counts_what_is_not_finite(measures: tuple[str, ...], dtype: str, mode: str, share: float) -> None:
    built = build_case(dataclasses.replace(SPEC, dtype=dtype, mode=mode))  # type: ignore[arg-type]
    case = dataclasses.replace(built, module=Overflows())
    record = Record(fusion="own:Overflows", backend="eager", mode=mode, dtype=dtype)
    entrant = enter(case, record, eager=EagerOutputs(case), measures=measures, clock=clock_for("cpu"))
    entrant.close()
    assert entrant.record.nonfinite_share == share
    assert entrant.record.error_vs_eager == 0.0


def test_finite_values_are_none_that_are_not() -> None:
    case = build_case(SPEC)
    assert EagerOutputs(case).judged(eager.prepare(case)) == {
        "error_vs_eager": 0.0,
        "rms_error_vs_eager": 0.0,
        "differing_share": 0.0,
        "nonfinite_share": 0.0,
    }
