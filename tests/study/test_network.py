"""Initialisation by name, and the trial of every network before training."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from afftool.errors import LoadError, ShapeError
from afftool.spec import FusionSpec, HostSpec
from afftool.study.network import Network, build_network, probe, signal

HOST = "resnet:b=1:classes=10"
IMAGES = torch.linspace(0, 1, 4 * 3 * 16 * 16).reshape(4, 3, 16, 16).sin()


def built(host: str, fusion: str, **how: Any) -> Network:
    return build_network(HostSpec.parse(host), FusionSpec.parse(fusion), **how)


@pytest.fixture
def gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "study_gates", raising=False)
    (tmp_path / "study_gates.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "class Zero(nn.Module):\n"
        "    def __init__(self, channels):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(channels, channels, 1)\n"
        "        nn.init.constant_(self.conv.weight, 0.125)\n"
        "        self.gate = nn.Parameter(torch.randn(channels))\n"
        "    def forward(self, x, y):\n"
        "        return x + self.gate[:, None, None] * self.conv(y)\n"
        "class Pooled(Zero):\n"
        "    def forward(self, x, y):\n"
        "        return super().forward(x, y).mean((2, 3), keepdim=True)\n"
        "class Broken(Zero):\n"
        "    def forward(self, x, y):\n"
        "        return x @ torch.ones(7, 7)\n"
        "class EditsInPlace(Zero):\n"
        "    def forward(self, x, y):\n"
        "        gate = torch.sigmoid(self.conv(y))\n"
        "        z = x * gate\n"
        "        gate.add_(1)\n"
        "        return z\n"
    )


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def test_a_host_starts_alike_whatever_fusion_it_carries() -> None:
    plain, rich = (weights(built(HOST, name, seed=3).module) for name in ("add", "iaff"))
    assert len(rich) > len(plain)
    assert all(torch.equal(value, rich[name]) for name, value in plain.items())


def test_fusions_start_alike_where_they_share_names() -> None:
    one, two = (weights(built(HOST, name, seed=3).module) for name in ("aff", "iaff"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_callers_random_state_and_order_do_not_matter() -> None:
    first = weights(built(HOST, "aff", seed=3).module)
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    second = weights(built(HOST, "aff", seed=3).module)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_another_seed_gives_another_network() -> None:
    one, two = (weights(built(HOST, "aff", seed=seed).module) for seed in (0, 1))
    assert not torch.equal(one["head.4.weight"], two["head.4.weight"])


def test_a_draw_changes_the_fusions_and_nothing_else() -> None:
    one, two = (built(HOST, "aff", seed=0, draw=draw) for draw in ("a", "b"))
    differing = {
        name for name, value in weights(one.module).items() if not torch.equal(value, weights(two.module)[name])
    }
    assert differing
    assert all(any(name.startswith(f"{place}.") for place in one.fusions) for name in differing)


def test_kaiming_draws_have_the_deviation_they_should() -> None:
    network = built("resnet:b=1:width=4", "add", seed=0).module
    weight = network.get_parameter("stage3.0.residual.5.weight")
    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.02)


@pytest.mark.usefixtures("gates")
def test_a_users_fusion_keeps_what_its_constructor_gave_it() -> None:
    one, two = (weights(built(HOST, "study_gates:Zero", seed=seed).module) for seed in (0, 0))
    assert (one["stage1.0.fuse.conv.weight"] == 0.125).all()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    other = weights(built(HOST, "study_gates:Zero", seed=1).module)
    assert not torch.equal(one["stage1.0.fuse.gate"], other["stage1.0.fuse.gate"])


@pytest.mark.usefixtures("gates")
def test_a_fusion_that_changes_the_shape_is_named() -> None:
    network = built(HOST, "study_gates:Pooled", seed=0)
    with pytest.raises(ShapeError, match=r"Pooled \(at stage1.0.fuse\)"):
        probe(network, IMAGES)


@pytest.mark.usefixtures("gates")
@pytest.mark.parametrize("fusion", ["scripted", "traced"])
def test_a_scripted_fusion_is_tried_as_any_other(fusion: str) -> None:
    network = built(HOST, f"scripted_fusions:{fusion}", seed=0)
    output, fused = probe(network, IMAGES)
    assert output.shape == (4, 10)
    assert fused == len(network.fusions) == 3
    assert len(signal(network, IMAGES)) == 3


@pytest.mark.usefixtures("gates")
def test_a_fusion_that_raises_is_named() -> None:
    network = built(HOST, "study_gates:Broken", seed=0)
    with pytest.raises(LoadError, match="study_gates:Broken in resnet"):
        probe(network, IMAGES)


@pytest.mark.usefixtures("gates")
def test_a_fusion_that_fails_in_the_backward_pass_is_told_before_training() -> None:
    network = built(HOST, "study_gates:EditsInPlace", seed=0)
    with pytest.raises(LoadError, match="fails in the backward pass"):
        probe(network, IMAGES)


@pytest.mark.usefixtures("gates")
def test_a_named_init_draws_the_users_own_fusions_too() -> None:
    kept, drawn = (built(HOST, "study_gates:Zero", seed=0, init=init).module for init in ("host", "kaiming"))
    conv = next(name for name, _ in kept.named_parameters() if name.endswith("fuse.conv.weight"))
    assert set(weights(kept)[conv].unique().tolist()) == {0.125}
    assert len(weights(drawn)[conv].unique()) > 10


def test_the_signal_is_read_without_a_trace() -> None:
    network = built(HOST, "aff", seed=0)
    before = {name: buffer.clone() for name, buffer in network.module.named_buffers()}
    single = signal(network, IMAGES)
    assert len(single) == 3
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.module.named_buffers())


def test_a_gain_of_two_doubles_what_the_first_fusion_puts_out() -> None:
    once, twice = (signal(built(HOST, name, seed=0), IMAGES)[0] for name in ("aff", "aff:gain=2"))
    assert twice == pytest.approx(2 * once, rel=1e-5)


def test_every_host_is_drawn_as_the_papers_table_has_it() -> None:
    """Xavier's uniform draws end at a bound that Kaiming's normal ones pass."""
    for host, uniform in (("resnext:b=1:base=1:classes=10", True), (HOST, False)):
        weight = next(
            part.weight for part in built(host, "add", seed=0).module.modules() if isinstance(part, nn.Conv2d)
        )
        fan_in, fan_out = weight[0].numel(), weight.shape[0] * weight[0, 0].numel()
        assert bool(weight.abs().max() <= (6 / (fan_in + fan_out)) ** 0.5) == uniform


def test_a_users_host_keeps_what_its_constructor_gave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study_host.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, fusion):\n"
        "        super().__init__()\n"
        "        self.fuse, self.stem = fusion(8), nn.Conv2d(3, 8, 1)\n"
        "        nn.init.uniform_(self.stem.weight, 5, 6)\n"
    )
    one, two = (weights(built("study_host:Net", name, seed=3).module) for name in ("add", "aff"))
    assert one["stem.weight"].min() >= 5
    assert all(torch.equal(value, two[name]) for name, value in one.items())
