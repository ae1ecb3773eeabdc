"""Which sizes a graph holds for: they run as the network runs them, and others are refused with both shapes."""

from __future__ import annotations

import copy

import pytest
import torch
from planted_networks import DropoutAndNorm, Net, SizeInTheWeights
from torch import nn

from afftool.errors import ShapeError
from afftool.fusion import fusion_factory
from afftool.graft.network import Survey, graft
from afftool.spec import FusionSpec

ADD = fusion_factory(FusionSpec.parse("add"))


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


Pair = tuple[nn.Module, nn.Module]


def pair(net: nn.Module) -> Pair:
    """A network, and it grafted with additions, in eval mode."""
    grafted = graft(copy.deepcopy(net), [images(2, 3, 8, 8)], ADD, modes=("eval",))
    return net.eval(), grafted.eval()


@pytest.fixture(scope="module")
def any_size() -> Pair:
    return pair(Net())


@pytest.fixture(scope="module")
def one_size() -> Pair:
    return pair(SizeInTheWeights())


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 3, 8, 8), (7, 3, 8, 8), (1, 3, 5, 12), (3, 3, 1, 1)])
def test_another_batch_and_another_size_run_as_in_the_network(any_size: Pair, shape: tuple[int, ...]) -> None:
    net, grafted = any_size
    assert torch.equal(grafted(images(*shape)), net(images(*shape)))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_network_of_one_size_takes_any_batch(one_size: Pair, batch: int) -> None:
    net, grafted = one_size
    assert torch.equal(grafted(images(batch, 3, 8, 8)), net(images(batch, 3, 8, 8)))


def test_a_size_that_the_graph_does_not_hold_for_is_refused_with_both_sizes(one_size: Pair) -> None:
    for _ in range(2):  # what was refused is not taken the next time
        with pytest.raises(
            ShapeError, match=r"SizeInTheWeights was traced with 2x3x8x8, .* hold for 1x3x4x8"
        ) as refused:
            one_size[1](images(1, 3, 4, 8))
        assert refused.value.hint == "graft it at that size"


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 8, 8)])
def test_other_channels_and_a_missing_batch_are_not_a_matter_of_size(any_size: Pair, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=f"for {'x'.join(map(str, shape))}") as refused:
        any_size[1](images(*shape))
    assert "channels" in (refused.value.hint or "")


def test_what_may_vary_is_told_by_the_trace() -> None:
    held = Survey((images(1, 3, 8, 8),)).look(Net(), "eval").traces["eval"]
    assert held.free == ((0, 2, 3),)
    assert held.holds_for(lambda shape: (9, *shape[1:]))
    assert held.holds_for(lambda shape: (*shape[:2], 16, 24))
    fixed = Survey((images(1, 3, 8, 8),)).look(SizeInTheWeights(), "eval").traces["eval"]
    assert fixed.holds_for(lambda shape: (9, *shape[1:]))
    assert not fixed.holds_for(lambda shape: (*shape[:2], 16, 24))


def test_training_that_is_traced_at_its_first_step_takes_that_steps_batch_and_size() -> None:
    net = DropoutAndNorm()
    grafted = graft(copy.deepcopy(net), [images(2, 3, 8, 8)], ADD, modes=("eval",))
    given = []
    for one in (net, grafted):
        torch.manual_seed(5)
        given.append(one.train()(images(5, 3, 6, 10)))
        given[-1].sum().backward()
    assert torch.equal(*given)
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(net.parameters(), grafted.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), grafted.buffers(), strict=True))
