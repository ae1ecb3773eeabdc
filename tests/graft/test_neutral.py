"""`init=neutral`: a trained network that fusions are put into starts as it was, and can be trained from there."""

from functools import partial

import pytest
import torch
from graftable import Net
from torch import Tensor, nn
from torch.nn import functional

from afftool.data import load
from afftool.errors import SpecError
from afftool.fusion import FusionFactory, build_fusion, fusion_factory
from afftool.graft.join import start_neutral
from afftool.graft.network import graft
from afftool.spec import FusionSpec, HostSpec
from afftool.spec.graft import Init, Selection
from afftool.study.network import build_network

ADDS = Selection(at=("add",))
STARTS = ("add", "concat", "aff", "iaff", "iaff:iterations=3", "aff:reduction=2", "aff:gain=2", "local-local")


def factory(text: str) -> FusionFactory:
    return fusion_factory(FusionSpec.parse(text))


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    split = load("digits").train
    images = torch.from_numpy(split.images).float() / 255
    return images, torch.from_numpy(split.labels).long()


@pytest.fixture(scope="module")
def trained(digits: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """The weights of a little network that knows its digits."""
    images, labels = digits
    torch.manual_seed(0)
    net = fresh()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for epoch in range(3):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(64):
            optimizer.zero_grad()
            functional.cross_entropy(net.train()(images[batch]), labels[batch]).backward()
            optimizer.step()
    return net.state_dict()


def fresh(weights: dict[str, Tensor] | None = None) -> Net:
    net = Net(dropout=0.0)
    net.fc = nn.Linear(16, 10)
    if weights:
        net.load_state_dict(weights)
    return net


def accuracy(net: nn.Module, digits: tuple[Tensor, Tensor]) -> float:
    images, labels = digits
    with torch.no_grad():
        return float((net.eval()(images).argmax(1) == labels).float().mean())


def grafted(weights: dict[str, Tensor], fusion: str, init: Init) -> nn.Module:
    torch.manual_seed(1)
    return graft(fresh(weights), (torch.zeros(2, 3, 8, 8),), factory(fusion), ADDS, init=init)


@pytest.mark.parametrize("fusion", ["aff", "iaff", "concat"])
def test_a_trained_network_keeps_its_accuracy_with_neutral_fusions_and_loses_it_with_the_papers(
    fusion: str, trained: dict[str, Tensor], digits: tuple[Tensor, Tensor]
) -> None:
    before = accuracy(fresh(trained), digits)
    assert before > 0.9
    assert accuracy(grafted(trained, fusion, "neutral"), digits) == pytest.approx(before, abs=2e-3)
    assert accuracy(grafted(trained, fusion, "paper"), digits) < before - 0.2


@pytest.mark.parametrize("fusion", ["aff", "iaff", "iaff:iterations=3"])
def test_every_parameter_is_trained_from_the_second_step_on(
    fusion: str, trained: dict[str, Tensor], digits: tuple[Tensor, Tensor]
) -> None:
    images, labels = (one[:32] for one in digits)
    net = grafted(trained, fusion, "neutral").train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for step in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(net(images), labels).backward()
        still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
        if step == 0:
            assert all(name.startswith("fusions.") for name in still)
            optimizer.step()
    assert [name for name in still if not _before_a_batch_norm(name, net)] == []


def _before_a_batch_norm(name: str, net: nn.Module) -> bool:
    """Whether it is a bias that a batch norm takes away again: it has no gradient whatever it starts as."""
    path, _, kind = name.rpartition(".")
    return kind == "bias" and isinstance(net.get_submodule(path), nn.modules.conv._ConvNd)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("fusion", STARTS)
@pytest.mark.parametrize("training", [False, True])
def test_a_neutral_fusion_is_the_sum_of_its_maps(fusion: str, ndim: int, training: bool) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 2, 8, *(4,) * ndim)
    made = start_neutral(build_fusion(FusionSpec.parse(fusion).with_settings(ndim=ndim), channels=8)).train(training)
    torch.testing.assert_close(made(x, y), x + y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("fusion", ["aff", "iaff"])
def test_its_parameters_have_gradients_after_one_step_in_any_dimension(fusion: str, ndim: int) -> None:
    torch.manual_seed(0)
    x, y, wanted = torch.randn(3, 4, 8, *(4,) * ndim)
    made = start_neutral(build_fusion(FusionSpec.parse(fusion).with_settings(ndim=ndim), channels=8)).train()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        functional.mse_loss(made(x, y), wanted).backward()
        optimizer.step()
    still = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in still if not _before_a_batch_norm(name, made)] == []


@pytest.mark.parametrize(
    ("fusion", "says"),
    [
        ("ms-gau", "not modulation"),
        ("aff:norm=none", "norm=none"),
        ("concat-aff", "join=concat"),
        ("scripted_fusions:scripted", "fusions of afftool's own"),
    ],
)
def test_a_fusion_that_cannot_start_neutral_is_refused_with_those_that_can(fusion: str, says: str) -> None:
    with pytest.raises(SpecError, match=says) as refused:
        graft(fresh(), (torch.zeros(2, 3, 8, 8),), factory(fusion), ADDS, init="neutral")
    assert "aff and iaff" in str(refused.value.hint) or "leave init out" in str(refused.value.hint)


def test_a_concatenation_cannot_start_as_a_fusion_of_its_maps() -> None:
    host = HostSpec.parse("graft:graftable:Segmenter:init=neutral")
    build = partial(build_network, fusion=FusionSpec.parse("aff"), seed=0, size=(8, 8))
    with pytest.raises(SpecError, match="side by side") as refused:
        build(host)
    assert "at=add" in str(refused.value.hint)
    assert len(build(host.with_settings(at="add")).fusions) == 1


@pytest.mark.parametrize("fusion", ["aff", "iaff", "concat"])
@pytest.mark.parametrize("init", ["host", "kaiming"])
def test_a_study_starts_its_cells_neutral_whatever_draws_their_weights(fusion: str, init: str) -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    host = HostSpec.parse("graft:graftable:Net:init=neutral")
    nets = [
        build_network(host, FusionSpec.parse(one), seed=2, init=init, size=(8, 8)).module.eval()  # type: ignore[arg-type]
        for one in ("original", fusion)
    ]
    torch.testing.assert_close(nets[0](images), nets[1](images), atol=1e-5, rtol=1e-5)
