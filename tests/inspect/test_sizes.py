"""What is said of modules that work, use all of themselves, or export, at some sizes only, and in some precisions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
import torch
from planted_fusions import Plain
from torch import nn
from torch.nn import functional

from afftool.inspect import checks
from afftool.inspect.finding import Finding
from afftool.inspect.gradients import dead_parameters
from afftool.inspect.precision import sixteen_bits
from afftool.inspect.sizes import other_sizes, sizes
from afftool.inspect.subject import Subject
from afftool.inspect.tracing import export

Maps = torch.Tensor


class By(nn.Module):
    """A 1x1 convolution of x, and whatever a function makes of the two maps."""

    def __init__(self, function: Callable[[Maps, Maps], Maps], channels: int = 4, ndim: int = 2) -> None:
        super().__init__()
        self.fc = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim](channels, channels, 1)
        self.function = function

    def forward(self, x: Maps, y: Maps) -> Maps:
        return self.function(self.fc(x), y)


def by(function: Callable[[Maps, Maps], Maps], size: tuple[int, ...] = (16, 16), batch: int = 4) -> Subject:
    return Subject(name="by", make=lambda: By(function, ndim=len(size)), channels=4, size=size, batch=batch)


def shuffled(x: Maps, y: Maps, factor: int) -> Maps:
    return functional.pixel_shuffle(functional.pixel_unshuffle(x + y, factor), factor)


def position(size: int, ndim: int = 2) -> Callable[[Maps, Maps], Maps]:
    return lambda x, y: x + y + torch.zeros((1, 4) + (size,) * ndim)


def reflected(y: Maps, border: int) -> Maps:
    return functional.pad(y, (border,) * 4, mode="reflect")[..., border:-border, border:-border]


def halved(x: Maps, y: Maps) -> Maps:
    return functional.interpolate(functional.avg_pool2d(x + y, 2), scale_factor=2)


@pytest.mark.parametrize(
    ("function", "size", "says"),
    [
        (
            position(16),
            (16, 16),
            "works at 16 x 16 only; at 7 x 7 (and at 12 x 20, 8 x 24, 15 x 9",
        ),
        (position(9, 1), (9,), "works at 9 only; at 7 (and at 20"),
        (position(6, 3), (6, 6, 6), "works at 6 x 6 x 6 only; at 5 x 5 x 5"),
        (lambda x, y: shuffled(x, y, 8), (16, 16), "16 x 16, 8 x 24 and 32 x 32, multiples of 8; at 7 x 7 (and at"),
        (lambda x, y: shuffled(x, y, 2), (16, 16), "12 x 20, 8 x 24, 6 x 6 and 32 x 32, multiples of 2; at 7 x 7"),
        (lambda x, y: x + y.transpose(2, 3), (9, 9), "32 x 32, square ones; at 12 x 20 (and at 8 x 24 and 15 x 9)"),
        (
            lambda x, y: x + functional.pad(y, (7,) * 4, mode="reflect")[..., 7:-7, 7:-7],
            (16, 16),
            "larger ones; at 7 x",
        ),
        (halved, (8, 8), "multiples of 2; at 7 x 7 (and at 15 x 9 and 1 x 1): the output has the shape (4, 4, 6, 6)"),
    ],
)
def test_it_is_said_at_which_sizes_it_works_and_why_not_at_others(
    function: Callable[[Maps, Maps], Maps], size: tuple[int, ...], says: str
) -> None:
    (finding,) = sizes(by(function, size))
    assert finding.severity == "warning"
    assert says in finding.what, finding.what
    assert list(size) in finding.measured["works"]


def test_torchs_reason_and_the_line_are_told() -> None:
    (finding,) = sizes(by(position(16)))
    assert "RuntimeError: The size of tensor a (7) must match the size of tensor b (16)" in finding.what
    assert f"({__file__}:" in finding.what
    assert set(finding.measured["fails"]) == {"7x7", "12x20", "8x24", "15x9", "6x6", "1x1", "32x32"}


def test_what_fails_in_training_alone_is_said_to() -> None:
    class Trains(By):
        def forward(self, x: Maps, y: Maps) -> Maps:
            if self.training and x.shape[-1] % 2:
                raise ValueError("odd")
            return self.fc(x) + y

    (finding,) = sizes(Subject(name="", make=lambda: Trains(torch.add), channels=4, size=(8, 8), batch=2))
    assert "in training ValueError: odd" in finding.what


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_a_single_position_that_gives_no_number_is_worth_a_note() -> None:
    (finding,) = sizes(by(lambda x, y: x / x.std((2, 3), keepdim=True) + y))
    assert finding.severity == "note"
    assert "at 1 x 1: the output is not finite" in finding.what


def test_what_works_at_every_size_is_said_with_the_sizes() -> None:
    (finding,) = sizes(by(torch.add))
    assert finding.severity == "ok"
    told = "works at 16 x 16, 7 x 7, 12 x 20, 8 x 24, 15 x 9, 6 x 6, 1 x 1 and 32 x 32, in eval and in training"
    assert finding.what == told


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("batch", [2, 8, 64, 512])
def test_the_sizes_tried_are_odd_uneven_small_and_large_and_attention_over_them_fits(ndim: int, batch: int) -> None:
    tried = other_sizes(by(torch.add, (9,) * ndim, batch))
    assert any(extent % 2 for extent in tried[0])
    assert (1,) * ndim in tried
    assert ndim == 1 or any(len(set(size)) > 1 for size in tried)
    for size in tried[len(tried) - 1 :]:
        assert batch * torch.Size(size).numel() ** 2 <= 2**25
    assert (max(map(max, tried)) > 9) or batch == 512


class Branch(nn.Module):
    """Another path for small maps, and one that nothing takes."""

    def __init__(self, limit: int = 12, lost: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.lost = nn.Conv2d(4, 4, 1) if lost else None
        self.limit = limit

    def forward(self, x: Maps, y: Maps) -> Maps:
        return (self.b if x.shape[-1] > self.limit else self.a)(x) + y


def branch(size: int, *, lost: bool = False) -> Subject:
    return Subject(name="", make=lambda: Branch(lost=lost), channels=4, size=(size, size), batch=4)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (16, "a is not called at this size (16 x 16); it is at 7 x 7"),
        (7, "b is not called at this size (7 x 7); it is at 12 x 20, 8 x 24 and 32 x 32"),
    ],
)
def test_what_another_size_calls_is_not_called_at_this_one_and_not_dead(size: int, says: str) -> None:
    (finding,) = dead_parameters(branch(size))
    assert finding.severity == "warning"
    assert says in finding.what
    assert "never called" not in finding.what


def test_what_only_far_larger_maps_call_is_not_dead() -> None:
    subject = Subject(name="", make=lambda: Branch(limit=100), channels=4, size=(16, 16), batch=4)
    (finding,) = dead_parameters(subject)
    assert "b is not called at this size (16 x 16); it is at 8 x 256" in finding.what


def test_what_is_called_in_eval_alone_is_said_to_be() -> None:
    class Late(By):
        def forward(self, x: Maps, y: Maps) -> Maps:
            return x + y if self.training else self.fc(x) + y

    (finding,) = dead_parameters(Subject(name="", make=lambda: Late(torch.add), channels=4, size=(8, 8), batch=2))
    assert finding.severity == "fault"
    assert "fc is called in eval and not in training" in finding.what
    assert finding.measured["never_called"] == []


def test_what_no_size_calls_is_told_apart_from_what_another_calls() -> None:
    dead, idle = dead_parameters(branch(16, lost=True))
    assert dead.severity == "fault"
    assert "20 of 188 parameters are dead: lost is built and never called" in dead.what
    assert dead.measured["dead_params"] == 4 * 4 + 4
    assert "a is not called at this size" in idle.what
    assert idle.measured["dead_params"] == 4 * 4 + 4


def test_what_other_sizes_do_not_use_is_named_as_a_whole() -> None:
    (finding,) = sizes(branch(16))
    assert finding.severity == "note"
    assert finding.what == "b: used at 16 x 16, not at 7 x 7, 15 x 9, 6 x 6 and 1 x 1"
    assert [16, 16] in finding.measured["works"]


def reviewed(subject: Subject, *names: str) -> list[Finding]:
    kept = {name: path for name, path in checks.CHECKS.items() if name in ("output", "sizes", *names)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "CHECKS", kept)
        return [f for f in checks.review(subject) if f.check in names and f.severity == "fault"]


def test_a_fault_of_other_sizes_alone_is_found_and_said_where() -> None:
    deaf = by(lambda x, y: x if x.shape[-1] == 7 else x + y)
    (finding,) = reviewed(deaf, "x and y")
    assert finding.what == "at 7 x 7, not at 16 x 16: the output does not depend on y"
    assert finding.measured["holds_at"] == [[7, 7]]


def test_a_fault_says_at_which_of_the_sizes_it_holds_unless_at_all() -> None:
    (finding,) = reviewed(by(lambda x, y: x + y if x.shape[-1] == 7 else x), "x and y")
    assert finding.what == "the output does not depend on y (at 16 x 16 and 12 x 20; not at 7 x 7)"
    (everywhere,) = reviewed(by(lambda x, y: x), "x and y")
    assert everywhere.what == "the output does not depend on y"


def test_what_does_not_run_as_asked_is_looked_for_at_other_sizes() -> None:
    (finding,) = reviewed(dataclasses.replace(by(position(32))), "output")
    assert finding.do.startswith("It runs at 32 x 32: `--size 32x32` looks at it there.")


# Exports.


@pytest.mark.parametrize(
    ("function", "severity", "says"),
    [
        (torch.add, "ok", "exports with a dynamic batch, height and width, and gives the same at 3 x 4 x 12 x 20"),
        (
            lambda x, y: x + y if x.shape[-1] > 12 else x - y,
            "warning",
            "exports with a dynamic batch and height, but not with a dynamic width: Not all values of width",
        ),
        (position(16), "warning", "exports with a dynamic batch, but not with a dynamic height and width: You marked"),
        (
            lambda x, y: (x + y).reshape(4, *x.shape[1:]),
            "warning",
            "cannot be exported with a dynamic batch, only with a dynamic height and width: You marked batch",
        ),
        (
            lambda x, y: x + y if float(x.sum()) > 0 else y,
            "warning",
            "cannot be exported, with a dynamic batch or without",
        ),
    ],
)
def test_it_is_said_what_can_be_dynamic_in_an_export(
    function: Callable[[Maps, Maps], Maps], severity: str, says: str
) -> None:
    (finding,) = export(by(function))
    assert finding.severity == severity
    assert says in finding.what


def test_the_dimensions_of_an_export_have_names_in_one_and_three_dimensions() -> None:
    assert "a dynamic batch and length, and" in export(by(torch.add, (9,)))[0].what
    assert "a dynamic batch, depth, height and width, and" in export(by(torch.add, (4, 6, 8)))[0].what


# 16 bits.


def test_a_module_without_fault_runs_in_16_bits_and_under_autocast() -> None:
    (finding,) = sixteen_bits(Subject(name="", make=lambda: Plain(8), channels=8, size=(6, 5), batch=4))
    assert finding.severity == "ok"
    assert finding.what.startswith(
        "runs in bfloat16, in float16 and under autocast to bfloat16, in eval and in training;"
    )
    assert 0 < max(finding.measured["differences"].values()) < 0.02


def swished(x: Maps, y: Maps) -> Maps:
    e = (4 * (x + y)).exp()
    return x * torch.sigmoid(e / e.sum((2, 3), keepdim=True)) + 100 * y * y.abs().exp().exp()


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (
            lambda x, y: x + y @ torch.eye(x.shape[-1]),
            "does not run in bfloat16 and in float16: RuntimeError: expected m1 and m2 to have the same dtype",
        ),
        (
            lambda x, y: (x + y) * torch.ones(x.shape[-1]),
            "bfloat16 maps give a float32 one; float16 maps give a float32",
        ),
        (lambda x, y: x + (200 * y + 1000).sin(), "in bfloat16 its output is .*% off float32's"),
        (
            lambda x, y: torch.empty_like(y).index_copy_(0, torch.arange(len(y)), x),
            "does not run under autocast to bfloat16: RuntimeError: index_copy",
        ),
    ],
)
def test_what_goes_wrong_in_16_bits_is_told_with_its_reason(function: Callable[[Maps, Maps], Maps], says: str) -> None:
    findings = sixteen_bits(by(function))
    assert {f.severity for f in findings} == {"warning"}
    assert re.search(says, findings[0].what), findings[0].what


def test_what_is_not_finite_in_16_bits_is_a_fault_with_its_share() -> None:
    finding, *_ = sixteen_bits(by(swished))
    assert finding.severity == "fault"
    assert re.search(r"outputs and gradients are not finite: .*[\d.]+% in float16", finding.what)


# One map, and three.


class Mean(nn.Module):
    """A convolution of the mean of however many maps."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(4, 4, 1)

    def forward(self, *maps: Maps) -> Maps:
        return self.fc(torch.stack(maps).mean(0))


@pytest.mark.parametrize("inputs", [1, 3])
def test_a_module_of_one_map_or_of_three_is_looked_at_by_every_check(inputs: int) -> None:
    subject = Subject(name="", make=Mean, channels=4, size=(5, 6), batch=4, inputs=inputs)
    found = {finding.check: finding for finding in checks.review(subject)}
    assert set(found) == set(checks.CHECKS)
    assert [f.what for f in found.values() if f.severity in ("unknown", "fault")] == []
    shares = found["x and y"].measured["sensitivity_shares"]
    assert shares == pytest.approx([1 / inputs] * inputs)
    if inputs == 1:
        assert found["x and y"].what == "it takes one map, and its output depends on it"
        assert "takes one map" in found["mismatched shapes"].what
