import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from afftool.backends.outputs import Agreement, Outputs, agree, compare, uses_tf32
from afftool.backends.rounding import jumps
from afftool.backends.workload import Workload, in_double
from afftool.build import Case, build_case
from afftool.errors import Rejected
from afftool.spec import CaseSpec, FusionSpec


def outputs(**tensors: torch.Tensor) -> Outputs:
    return Outputs({"output": tensors})


def unasked() -> Outputs | None:
    raise AssertionError("the arbiter is asked only in doubt")


def test_the_error_is_relative_to_the_largest_value() -> None:
    eager = outputs(a=torch.tensor([4.0, 1.0]))
    assert compare(outputs(a=torch.tensor([4.0, 1.0001])), eager, unasked) == pytest.approx(0.0001 / 4, rel=0.01)
    assert compare(eager, eager, unasked) == 0.0


def test_a_wrong_value_is_rejected() -> None:
    eager = outputs(a=torch.ones(3))
    wrong = outputs(a=torch.tensor([1.0, 1.0, 1.01]))
    with pytest.raises(Rejected, match=r"output a by 0\.01"):
        compare(wrong, eager, lambda: outputs(a=torch.ones(3, dtype=torch.float64)))
    with pytest.raises(Rejected):
        compare(wrong, eager, lambda: None)


def test_a_small_wrong_tensor_is_not_hidden_by_a_large_one() -> None:
    eager = outputs(large=torch.full((3,), 1e4), small=torch.full((3,), 1e-2))
    wrong = outputs(large=torch.full((3,), 1e4), small=torch.full((3,), 2e-2))
    exact = outputs(large=torch.full((3,), 1e4).double(), small=torch.full((3,), 1e-2).double())
    with pytest.raises(Rejected, match="small"):
        compare(wrong, eager, lambda: exact)


def test_rounding_noise_around_zero_is_no_mismatch() -> None:
    # the gradient of a bias in front of a batch norm is zero, and what comes out is noise
    eager = outputs(weight=torch.full((3,), 10.0), bias=torch.tensor([3e-7, -2e-7]))
    found = outputs(weight=torch.full((3,), 10.0), bias=torch.tensor([-4e-7, 1e-7]))
    exact = outputs(weight=torch.full((3,), 10.0).double(), bias=torch.tensor([1e-17, 0.0]).double())
    assert compare(found, eager, lambda: exact) < 1e-6


def test_being_nearer_to_the_truth_than_eager_is_no_mismatch() -> None:
    exact = outputs(a=torch.full((4,), 1.0).double())
    eager = outputs(a=torch.full((4,), 1.03))
    found = outputs(a=torch.full((4,), 1.0))
    assert compare(found, eager, lambda: exact) == pytest.approx(0.03 / 1.03)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_where_eager_is_finite_a_backend_must_be_and_is_told_so(value: float) -> None:
    finite, odd = outputs(a=torch.ones(2)), outputs(a=torch.tensor([1.0, value]))
    assert compare(odd, odd, unasked) == 0.0
    with pytest.raises(Rejected, match="output a is infinite or NaN in 1 of 2 elements where eager's is finite"):
        compare(odd, finite, lambda: None)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_where_eager_is_not_finite_nobody_is_blamed_for_it(value: float) -> None:
    finite, odd = outputs(a=torch.tensor([1.0, 2.0])), outputs(a=torch.tensor([1.0, value]))
    assert compare(finite, odd, lambda: None) == 0.0
    assert compare(outputs(a=torch.tensor([value, 2.0])), odd, lambda: None) == 0.0  # as many, elsewhere


def test_a_backend_is_blamed_for_many_more_values_that_are_not_finite_than_eager_has() -> None:
    eager = outputs(a=torch.tensor([1.0, 1.0, 1.0, math.inf]))
    with pytest.raises(Rejected, match="infinite or NaN in 2 of 4"):
        compare(outputs(a=torch.tensor([1.0, math.nan, math.nan, math.nan])), eager, lambda: None)


def test_beside_values_that_are_not_finite_a_wrong_one_is_still_refused() -> None:
    eager, exact = outputs(a=torch.tensor([1.0, 1.0, math.inf])), outputs(a=torch.ones(3).double())
    with pytest.raises(Rejected, match=r"output a by 0\.5"):
        compare(outputs(a=torch.tensor([1.0, 1.5, 1.0])), eager, lambda: exact)


def test_a_share_counts_infinities_and_nans_of_outputs_and_gradients_not_of_buffers() -> None:
    odd = torch.tensor([1.0, math.inf, math.nan, -math.inf])
    assert (
        Outputs({"output": {"a": odd}, "input gradient": {"0": torch.ones(2)}, "buffer": {"b": odd}}).nonfinite_share
        == 0.5
    )
    assert Outputs({"buffer": {"b": odd}}).nonfinite_share == 0.0


def test_a_kink_in_eager_itself_does_not_widen_what_is_allowed_elsewhere() -> None:
    # eager is off by 0.5 in one element of a thousand; a backend may not be off by as much in another
    exact = outputs(a=torch.linspace(-1, 1, 2000).double())
    eager, wrong = (outputs(a=exact.kinds["output"]["a"].float()) for _ in range(2))
    eager.kinds["output"]["a"][7] += 0.5
    wrong.kinds["output"]["a"][1500:1510] += 0.5
    with pytest.raises(Rejected, match="in 10 of 2,000 elements"):
        compare(wrong, eager, lambda: exact)


def test_what_differs_is_counted_and_how_far() -> None:
    eager, exact = outputs(a=torch.tensor([3.0, 4.0, 0.0, 0.0])), outputs(a=torch.tensor([3.0, 4.0, 0.0, 0.0]).double())
    jumping = {"output": {"a": torch.tensor([0.0, 0.0, 1.0, 0.0])}}
    near = agree(outputs(a=torch.tensor([3.0, 4.0, 1.0, 0.0])), eager, lambda: exact, lambda: jumping)
    assert near == Agreement(error=0.25, rms_error=0.2, differing=1, elements=4, fault=None)
    assert near.differing_share == 0.25


def test_a_jump_explains_its_own_element_and_no_other() -> None:
    eager = outputs(a=torch.ones(4))
    jumping = {"output": {"a": torch.tensor([0.0, 0.0, 0.3, 0.0])}}
    found = torch.tensor([1.0, 1.0, 1.3, 1.3])
    near = agree(outputs(a=found), eager, lambda: None, lambda: jumping)
    assert near.fault == "output a by 0.3 where eager's largest value is 1, in 1 of 4 elements"


def test_a_missing_gradient_and_a_wrong_shape_are_rejected() -> None:
    eager = outputs(a=torch.ones(2), b=torch.ones(2))
    with pytest.raises(Rejected, match="b exist only in one"):
        compare(outputs(a=torch.ones(2)), eager, unasked)
    with pytest.raises(Rejected, match="shape"):
        compare(outputs(a=torch.ones(2), b=torch.ones(2, 1)), eager, unasked)


def test_counters_must_be_equal_exactly() -> None:
    with pytest.raises(Rejected):
        compare(outputs(n=torch.tensor(2)), outputs(n=torch.tensor(1)), lambda: None)


def to_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """The nearest value with TF32's 10 bits of mantissa."""
    bits = tensor.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


def cut_to_tf32(tensor: torch.Tensor) -> torch.Tensor:
    """TF32 as tensor cores take it from float32: the other bits are not looked at."""
    return (tensor.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


def to_bfloat16(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.bfloat16).float()


PRODUCTS = ("conv2d", "convolution", "convolution_backward", "mm", "addmm", "bmm", "linear")
"""`conv2d` and `linear` arrive whole in inference mode."""


class Multiplying(TorchDispatchMode):
    """Convolutions and matrix products that see their operands in a precision of ours."""

    def __init__(self, rounded: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.rounded = rounded

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket.__name__ in PRODUCTS:
            args = tuple(self.rounded(a) if isinstance(a, torch.Tensor) else a for a in args)
        return function(*args, **(kwargs or {}))


def aff(mode: str) -> Case:
    spec = CaseSpec(fusion=FusionSpec.parse("aff"), channels=16, size=(8, 8), batch=4, mode=mode)  # type: ignore[arg-type]
    return build_case(spec)


def on_a_gpu(case: Case, rounded: Callable[[torch.Tensor], torch.Tensor], *, tf32: bool = True) -> Outputs:
    """What a device whose multiplications round so leaves after a step."""
    with Multiplying(rounded):
        return dataclasses.replace(Workload(case).outputs(0), tf32=tf32)


MODES = pytest.mark.parametrize("mode", ["infer", "train"])


@MODES
@pytest.mark.parametrize(("found", "eager"), [(to_tf32, cut_to_tf32), (cut_to_tf32, to_tf32)])
def test_two_kernels_in_tf32_agree_where_eager_used_it(mode: str, found: Any, eager: Any) -> None:
    case = aff(mode)
    compare(on_a_gpu(case, found), on_a_gpu(case, eager), lambda: in_double(case, 0))


def test_what_agrees_in_tf32_does_not_in_float32() -> None:
    case = aff("train")
    exact = on_a_gpu(case, lambda tensor: tensor, tf32=False)
    with pytest.raises(Rejected):
        compare(on_a_gpu(case, cut_to_tf32), exact, lambda: in_double(case, 0))


@pytest.mark.parametrize("eager", [to_tf32, cut_to_tf32])
def test_bfloat16_is_refused_where_eager_used_tf32(eager: Any) -> None:
    case = aff("train")
    with pytest.raises(Rejected):
        compare(on_a_gpu(case, to_bfloat16), on_a_gpu(case, eager), lambda: in_double(case, 0))


@MODES
@pytest.mark.parametrize("exact", [True, False])
def test_results_rounded_to_bfloat16_are_refused_where_eager_used_tf32(mode: str, exact: bool) -> None:
    case = aff(mode)
    eager = on_a_gpu(case, to_tf32)
    kinds = {
        kind: {name: to_bfloat16(t) if t.is_floating_point() else t for name, t in tensors.items()}
        for kind, tensors in eager.kinds.items()
    }
    with pytest.raises(Rejected):
        compare(Outputs(kinds), eager, lambda: in_double(case, 0) if exact else None)


@pytest.mark.parametrize("other", [to_tf32, cut_to_tf32])
def test_a_kink_between_two_kernels_in_tf32_is_seen_to_be_one(other: Any) -> None:
    spec = CaseSpec(fusion=FusionSpec.parse("iaff"), channels=16, size=(16, 16), batch=2, mode="train")
    case = build_case(spec)
    eager = on_a_gpu(case, to_tf32 if other is cut_to_tf32 else cut_to_tf32)
    near = agree(on_a_gpu(case, other), eager, lambda: in_double(case, 0), lambda: jumps(case, 0, eager))
    assert near.fault is None
    wrong = agree(on_a_gpu(case, to_bfloat16), eager, lambda: in_double(case, 0), lambda: jumps(case, 0, eager))
    assert wrong.fault


def drop_a_branch(case: Case) -> Case:
    wrong = build_case(case.spec)
    with torch.no_grad():
        list(wrong.module.global_att.children())[-1].weight.zero_()  # type: ignore[union-attr, operator, arg-type]
    return wrong


def swap_two_channels(case: Case) -> Case:
    wrong = build_case(case.spec)
    weight = next(p for p in wrong.module.parameters() if p.dim() == 4)
    with torch.no_grad():
        weight[[0, 1]] = weight[[1, 0]]
    return wrong


@MODES
@pytest.mark.parametrize("fault", [drop_a_branch, swap_two_channels])
def test_a_planted_fault_is_refused_where_eager_used_tf32(fault: Callable[[Case], Case], mode: str) -> None:
    case = aff(mode)
    with pytest.raises(Rejected):
        compare(on_a_gpu(fault(case), to_tf32), on_a_gpu(case, to_tf32), lambda: in_double(case, 0))


def test_torchs_settings_at_the_time_say_whether_tf32_is_used() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    before = convolutions.fp32_precision, products.fp32_precision
    try:
        for settings, expected in ((("tf32", "ieee"), True), (("ieee", "tf32"), True), (("ieee", "ieee"), False)):
            convolutions.fp32_precision, products.fp32_precision = settings
            assert uses_tf32(cuda) is expected
            assert not uses_tf32(cpu)
    finally:
        convolutions.fp32_precision, products.fp32_precision = before
