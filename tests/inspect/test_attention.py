"""What is read of attention weights: a selection's from its output, others' from the functions that squash them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from planted_fusions import ours, planted
from torch import nn
from torch.nn import functional

from afftool.inspect.attention import FAR_APART, TOO_MANY, attention_weights, statistics
from afftool.inspect.subject import Subject

Squash = Callable[[torch.Tensor], torch.Tensor]


class Own(nn.Module):
    """`x * squash(logits) + y`, then the gate is written over."""

    def __init__(self, squash: Squash, logits: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.squash, self.logits = squash, logits

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        weight = self.squash(self.logits(y).clone())
        self.seen = weight.clone()
        fused = y + weight * x
        weight.zero_()
        return fused


def own(squash: Squash, logits: Callable[[torch.Tensor], torch.Tensor] = lambda y: 2 * y + 1) -> Subject:
    return Subject(name="own", make=lambda: Own(squash, logits), channels=8, size=(6, 5), batch=8)


def seen(subject: Subject) -> torch.Tensor:
    module: Any = subject.module(training=True)
    with torch.no_grad():
        module(*subject.maps())
    return module.seen


def test_the_gate_of_a_black_box_is_read_off_its_output() -> None:
    (finding,) = attention_weights(planted("Constant"))
    assert finding.measured["mean"] == pytest.approx(0.3)
    subject = planted("Plain")
    (read,) = attention_weights(subject)
    x, y = subject.maps()
    truth = subject.module(training=True).gate(x, y)  # type: ignore[operator]
    kept = truth[(x - y).abs() >= FAR_APART]
    assert read.measured["mean"] == pytest.approx(kept.mean().item(), abs=1e-4)
    assert read.measured["spread"] == pytest.approx(kept.std().item(), abs=1e-4)


def test_local_and_global_branches_are_told_apart() -> None:
    shares = {text: attention_weights(ours(text))[0].measured for text in ("aff", "local-local", "global-global")}
    assert 0.2 < shares["aff"]["local_share"] < 0.8
    assert shares["local-local"]["local_share"] == 1
    assert shares["global-global"]["local_share"] == 0
    assert shares["global-global"]["position_share"] == pytest.approx(0, abs=1e-9)
    assert shares["local-local"]["position_share"] > 0.9


@pytest.mark.parametrize(
    ("kind", "squash"),
    [
        ("sigmoid", torch.sigmoid),
        ("sigmoid", torch.sigmoid_),
        ("sigmoid", torch.Tensor.sigmoid),
        ("sigmoid", torch.Tensor.sigmoid_),
        ("sigmoid", functional.sigmoid),
        ("sigmoid", torch.special.expit),
        ("sigmoid", nn.Sigmoid()),
        ("hardsigmoid", functional.hardsigmoid),
        ("hardsigmoid", nn.Hardsigmoid(inplace=True)),
        ("softmax", lambda z: torch.softmax(z, 1)),
        ("softmax", lambda z: z.softmax(dim=1)),
        ("softmax", lambda z: functional.softmax(z, dim=1)),
        ("softmax", nn.Softmax(dim=1)),
        ("tanh", torch.tanh),
        ("tanh", torch.Tensor.tanh_),
        ("tanh", nn.Tanh()),
    ],
)
def test_the_gate_of_a_users_own_module_is_caught_however_it_is_squashed(kind: str, squash: Squash) -> None:
    subject = own(squash)
    (finding,) = attention_weights(subject)
    truth = seen(subject)
    assert finding.measured["gate"] == kind
    assert finding.measured["mean"] == pytest.approx(truth.mean().item(), abs=1e-6)
    assert finding.measured["spread"] == pytest.approx(truth.std().item(), abs=1e-6)


@pytest.mark.parametrize("name", ["Steep", "Slammed"])
def test_the_saturated_gate_of_a_modulation_is_warned_of(name: str) -> None:
    (finding,) = attention_weights(planted(name))
    assert finding.severity == "warning"
    assert "saturated" in finding.what
    assert finding.measured["saturated"] > TOO_MANY


def test_the_spread_of_a_caught_gate_is_split_into_local_and_global() -> None:
    def pooled(y: torch.Tensor) -> torch.Tensor:
        return 20 * y.mean(dim=(2, 3), keepdim=True)

    def expanded(y: torch.Tensor) -> torch.Tensor:
        return pooled(y).expand_as(y)

    for logits in (pooled, expanded):
        (finding,) = attention_weights(own(torch.sigmoid, logits))
        assert finding.measured["position_share"] == pytest.approx(0, abs=1e-9)
    subject = own(torch.sigmoid, lambda y: y + pooled(y))
    (finding,) = attention_weights(subject)
    truth = seen(subject).double()
    local = (truth - truth.mean(dim=(2, 3), keepdim=True)).square().mean() / truth.var()
    assert finding.measured["position_share"] == pytest.approx(local.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((8, 16, 6, 5), (2, 3)),
        ((2, 8, 16, 6, 5), (3, 4)),
        ((8, 6, 5, 16), (1, 2)),
        ((8, 30, 16), (1,)),
        ((8, 16, 30), (2,)),
        ((8, 16, 3, 2), (2, 3)),
        ((8, 16, 1, 1), ()),
        ((8, 2, 16, 1, 1), ()),
        ((8, 16), ()),
        ((8, 4, 30, 30), None),
    ],
)
def test_the_positions_of_a_gate_are_known_by_its_shape(shape: tuple[int, ...], axes: tuple[int, ...] | None) -> None:
    values = torch.rand(shape, dtype=torch.float64)
    numbers = statistics("sigmoid", values[None], (6, 5))
    if axes is None:
        assert "position_share" not in numbers
    elif not axes:
        assert numbers["position_share"] == 0
    else:
        local = (values - values.mean(dim=axes, keepdim=True)).square().mean() / values.var()
        assert numbers["position_share"] == pytest.approx(local.item())


def test_many_small_weights_of_a_softmax_are_not_saturated_and_one_that_takes_all_is() -> None:
    (even,) = attention_weights(own(lambda z: torch.softmax(z.flatten(2), 2).view_as(z)))
    assert even.measured["saturated"] == 0
    assert even.severity == "ok"
    (barely,) = attention_weights(own(lambda z: torch.softmax(0.01 * z.flatten(2), 2).view_as(z)))
    assert barely.severity == "ok", barely.what
    (greedy,) = attention_weights(own(lambda z: torch.softmax(100 * z, 1)))
    assert greedy.severity == "warning"


def test_gates_of_one_kind_and_shape_are_read_as_one_and_others_apart() -> None:
    def twice(z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(z) * torch.sigmoid(-z) * torch.tanh(z)

    findings = attention_weights(own(twice))
    assert [(f.measured["gate"], f.measured["calls"]) for f in findings] == [("sigmoid", 2), ("tanh", 1)]


def test_where_no_gate_is_found_that_is_said_and_not_approved_of() -> None:
    (finding,) = attention_weights(planted("Broadcasts"))
    assert finding.severity == "note"
    assert "no gate was found" in finding.what
    (addition,) = attention_weights(ours("add"))
    assert (addition.severity, addition.what) == ("ok", "it has no gate")


def test_the_weights_of_three_inputs_are_their_softmax() -> None:
    (finding,) = attention_weights(ours("aff:inputs=3"))
    assert finding.measured["gate"] == "softmax"
    assert finding.measured["mean"] == pytest.approx(1 / 3)


def test_a_softmax_of_two_passes_is_saturated_as_seldom_as_that_of_one() -> None:
    once, twice = (attention_weights(ours(f"{name}:inputs=3"))[0].measured for name in ("aff", "iaff"))
    assert (once["calls"], twice["calls"]) == (1, 2)
    assert once["saturated"] < 0.05
    assert twice["saturated"] < 0.05
