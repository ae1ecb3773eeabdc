import math

import pytest
import torch

from afftool.backends.outputs import Outputs, compare
from afftool.errors import Rejected


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
def test_what_is_not_finite_must_be_so_in_both(value: float) -> None:
    finite, odd = outputs(a=torch.ones(2)), outputs(a=torch.tensor([1.0, value]))
    assert compare(odd, odd, unasked) == 0.0
    with pytest.raises(Rejected):
        compare(odd, finite, lambda: None)
    with pytest.raises(Rejected):
        compare(finite, odd, lambda: None)


def test_a_missing_gradient_and_a_wrong_shape_are_rejected() -> None:
    eager = outputs(a=torch.ones(2), b=torch.ones(2))
    with pytest.raises(Rejected, match="b exist only in one"):
        compare(outputs(a=torch.ones(2)), eager, unasked)
    with pytest.raises(Rejected, match="shape"):
        compare(outputs(a=torch.ones(2), b=torch.ones(2, 1)), eager, unasked)


def test_counters_must_be_equal_exactly() -> None:
    with pytest.raises(Rejected):
        compare(outputs(n=torch.tensor(2)), outputs(n=torch.tensor(1)), lambda: None)
