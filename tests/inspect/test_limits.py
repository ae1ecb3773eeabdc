"""Where the limits of the checks stand: beyond what the catalog does unless it is so, and short of what is planted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from planted_fusions import ours, planted
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from afftool.catalog import FUSIONS
from afftool.inspect.attention import TOO_MANY, attention_weights, statistics
from afftool.inspect.finding import Finding
from afftool.inspect.gradients import x_and_y
from afftool.inspect.output import batch_of_1
from afftool.inspect.precision import sixteen_bits
from afftool.inspect.scale import BACKWARD, BLOCKS, FORWARD, ten_blocks
from afftool.inspect.subject import SAME, Subject

# Ten blocks.

STEEP = ("iaff", "open-iaff", "open-aff", "eres2net-aff")
"""Those whose gradient grows by more than without any skip: two passes of attention, or a gain of 2."""


@pytest.mark.parametrize("name", list(FUSIONS))
def test_a_fusion_is_warned_of_where_its_gradient_grows_by_more_than_without_any_skip(name: str) -> None:
    (finding,) = ten_blocks(ours(name))
    estimate, low, high = finding.measured["block_gradient"]
    assert low <= estimate <= high
    assert (finding.severity == "warning") == (estimate > BACKWARD) == (name in STEEP), finding.what
    assert 1 / FORWARD < finding.measured["block_growth"][0] < FORWARD


class Skipless(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y + 0 * x


def test_the_limit_of_the_gradient_is_the_growth_of_a_stack_without_any_skip() -> None:
    subject = Subject(name="skipless", make=Skipless, channels=16, size=(12,), batch=8)
    (finding,) = ten_blocks(subject)
    assert 1.05 < finding.measured["block_gradient"][0] < BACKWARD


def test_a_block_is_held_against_addition_in_the_same_stack() -> None:
    (itself,) = ten_blocks(ours("add"))
    assert itself.measured["block_gradient"] == itself.measured["block_growth"] == [1, 1, 1]
    (finding,) = ten_blocks(ours("open-aff"))
    assert finding.measured["addition"]["gradient_ratio"] == itself.measured["gradient_ratio"]
    ratio = finding.measured["gradient_ratio"] / itself.measured["gradient_ratio"]
    assert finding.measured["block_gradient"][0] == pytest.approx(ratio ** (1 / BLOCKS))
    assert f"{finding.measured['gradient_ratio']:.3g} times in 10 blocks" in finding.what


def _flat(subject: Subject) -> Subject:
    """With the last norm of each branch at 0.1."""

    def make() -> nn.Module:
        module = subject.make()
        for branch in module.modules():
            if isinstance(branch, nn.Sequential):
                nn.init.constant_([part for part in branch if isinstance(part, nn.BatchNorm2d)][-1].weight, 0.1)
        return module

    return dataclasses.replace(subject, make=make)


@pytest.mark.parametrize("subject", [_flat(ours("iaff")), _flat(ours("open-aff")), ours("iaff:norm=layer")])
def test_the_gate_made_flatter_as_advised_brings_the_gradient_back_as_addition_does(subject: Subject) -> None:
    (finding,) = ten_blocks(subject)
    assert finding.severity == "ok", finding.what
    assert finding.measured["block_gradient"][0] < 1.07


@pytest.mark.parametrize(("gain", "way"), [(3, "large"), (0.5, "small")])
def test_a_gain_that_makes_the_signal_ten_times_as_large_or_as_small_as_addition_is_warned_of(
    gain: float, way: str
) -> None:
    finding = ten_blocks(ours(f"aff:gain={gain}"))[0]
    assert finding.severity == "warning"
    assert "the signal" in finding.what
    assert (finding.measured["block_growth"][0] > 1) == (way == "large")


def test_a_gradient_that_does_not_come_back_is_a_fault() -> None:
    class Cut(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return 0 * x + 0 * y + 1

    (finding,) = ten_blocks(Subject(name="cut", make=Cut, channels=4, size=(4, 4), batch=2))
    assert (finding.severity, "is 0 or not finite" in finding.what) == ("fault", True)


# Gates.


class _Scaled(TorchFunctionMode):
    """Scales what goes into a squashing function."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("sigmoid", "softmax", "tanh"):
            args = (self.factor * args[0], *args[1:])
        return func(*args, **(kwargs or {}))


class Scaled(nn.Module):
    def __init__(self, module: nn.Module, factor: float) -> None:
        super().__init__()
        self.module, self.factor = module, factor

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        with _Scaled(self.factor):
            out: torch.Tensor = self.module(*maps)
        return out


def gate(text: str, factor: float) -> Finding:
    subject = ours(text)
    make = subject.make
    (finding,) = attention_weights(dataclasses.replace(subject, make=lambda: Scaled(make(), factor), known=False))
    return finding


GATED = [name for name in FUSIONS if name not in ("add", "concat")] + ["aff:inputs=3", "aff:gate=tanh"]
TANH = ("eres2net-aff", "aff:gate=tanh")
"""A tanh of a logit is a sigmoid of twice as much."""


@pytest.mark.parametrize("text", GATED)
def test_a_gate_is_saturated_by_logits_scaled_tenfold_and_not_as_it_comes(text: str) -> None:
    plain, tenfold = gate(text, 1), gate(text, 10)
    assert plain.measured["saturated"] < 0.05
    assert plain.severity == "ok", plain.what
    if text != "concat-aff":  # of the smallest logits, and on the limit here
        assert (tenfold.severity, "saturated" in tenfold.what) == ("warning", True), tenfold.what
    assert gate(text, 30).measured["saturated"] > 2 * TOO_MANY
    if text not in TANH:
        assert gate(text, 3).severity == "ok"


@pytest.mark.parametrize(
    ("kind", "squash", "derivative"),
    [
        ("sigmoid", torch.sigmoid, 0.25),
        ("selection", torch.sigmoid, 0.25),
        ("tanh", torch.tanh, 1.0),
        ("hardsigmoid", functional.hardsigmoid, 1 / 6),
    ],
)
def test_a_weight_is_saturated_where_it_passes_a_hundredth_of_the_gradient_it_can(
    kind: str, squash: Callable[[torch.Tensor], torch.Tensor], derivative: float
) -> None:
    logits = torch.linspace(-9, 9, 4001, dtype=torch.float64).requires_grad_()
    weights = squash(logits)
    (slopes,) = torch.autograd.grad(weights.sum(), logits)
    numbers = statistics(kind, weights.detach()[None, None], (3,))
    assert numbers["saturated"] == pytest.approx(float((slopes < 0.01 * derivative).double().mean()), abs=1e-3)


def test_a_softmax_over_many_is_saturated_where_one_of_them_takes_it_all_and_not_where_all_are_small() -> None:
    even = torch.full((1, 1, 1000), 1e-3, dtype=torch.float64)
    one = torch.zeros_like(even)
    one[..., 3] = 1
    assert statistics("softmax", even, (1000,))["saturated"] == 0
    assert statistics("softmax", one, (1000,))["saturated"] == 1


# What differs by more than rounding.


@pytest.mark.parametrize("name", list(FUSIONS))
def test_rounding_in_16_bits_stays_far_below_its_limit(name: str) -> None:
    (finding,) = sixteen_bits(ours(name))
    differences = finding.measured["differences"]
    assert differences["in bfloat16"] < 1.5 * 2**-8
    assert differences["in float16"] < 1.5 * 2**-11


def test_what_is_ten_roundings_off_in_16_bits_is_warned_of() -> None:
    class Wound(nn.Module):
        """Turns a map a few times, so that its rounding counts as often."""

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + (50 * y).sin()

    (finding,) = sixteen_bits(Subject(name="wound", make=Wound, channels=4, size=(8, 8), batch=2))
    assert finding.severity == "warning"
    assert 10 * 2**-8 < finding.measured["differences"]["in bfloat16"] < 0.1


@pytest.mark.parametrize("name", list(FUSIONS))
def test_an_image_alone_differs_by_far_less_than_what_counts_and_a_leak_by_far_more(name: str) -> None:
    assert batch_of_1(ours(name))[0].measured["eval_difference"] < 1e-2 * SAME
    assert batch_of_1(planted("Leaky"))[0].measured["eval_difference"] > 100 * SAME


def test_rounding_does_not_make_a_module_that_runs_in_single_only_unsymmetric() -> None:
    class Single(nn.Module):
        """A sum of both maps' channels, taken in one order."""

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            mixed = functional.conv2d(torch.cat([x, y], 1), torch.full((8, 16, 1, 1), 1 / math.sqrt(16)))
            return x + y + mixed

    (finding,) = x_and_y(Subject(name="single", make=Single, channels=8, size=(6, 5), batch=4))
    assert finding.measured["change_by_swapping"] > 0, "so that rounding shows"
    assert finding.severity == "ok", finding.what
