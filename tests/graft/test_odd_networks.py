"""Networks that do what few do: what a graft keeps of it, and what it refuses."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
from grafted.same_network import differences
from planted_networks import Net
from torch import nn
from typer.testing import CliRunner

from afftool.cli import app
from afftool.errors import LoadError, TooLarge
from afftool.fusion import fusion_factory
from afftool.graft import graft_network
from afftool.graft.network import graft
from afftool.spec import FusionSpec

ADD = fusion_factory(FusionSpec.parse("add"))


def images() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(8))


class Exits(Net):
    """A forward that ends the process, as a script's does that finds no weights."""

    def forward(self, image: torch.Tensor) -> Any:
        sys.exit(4)


class Counts(Net):
    """A warm-up that counts its calls in a number of Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def body(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.f(x) * min(self.calls / 100, 1)


class CountsForNobody(Counts):
    """The same count, which nothing is worked out with."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.f(x)


class HooksAGradient(Net):
    """A branch whose gradient is made larger on its way back."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.f(x)
        if branch.requires_grad:
            branch.register_hook(lambda gradient: gradient * 3)
        return x + branch


class Infers(Net):
    """A frozen stem that is run in inference mode."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            frozen = self.f(x)
        return x + frozen.clone()


def twice(_module: nn.Module, _given: Any, output: torch.Tensor) -> torch.Tensor:
    return output * 2


def lighter(_module: nn.Module, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (given[0] + 1,)


def test_hooks_of_the_network_itself_run_once() -> None:
    net = Net()
    net.register_forward_hook(twice)
    net.register_forward_pre_hook(lighter)
    same = copy.deepcopy(net)
    graft(net, [images()], ADD)
    assert differences(same, net, [images()]) == []


def test_a_forward_that_ends_the_process_is_refused_with_its_line() -> None:
    with pytest.raises(LoadError, match=r"does not run on .*SystemExit: 4 \(at test_odd_networks.py:\d+"):
        graft(Exits(), [images()], ADD)


def test_a_count_that_the_next_call_works_with_is_refused_by_its_name() -> None:
    with pytest.raises(LoadError, match="the forward of Counts counts in calls what it then works with"):
        graft(Counts(), [images()], ADD)


def test_a_count_that_changes_nothing_is_let_be() -> None:
    net = CountsForNobody()
    same = copy.deepcopy(net)
    assert differences(same, graft(net, [images()], ADD), [images()]) == []


def test_a_hook_on_a_gradient_inside_a_forward_is_refused_and_can_be_registered_afterwards() -> None:
    with pytest.raises(LoadError, match="HooksAGradient hooks the gradient of a map"):
        graft(HooksAGradient(), [images()], ADD)
    weight = torch.ones(1, requires_grad=True)
    weight.register_hook(lambda gradient: gradient * 3)
    weight.sum().backward()
    assert weight.grad == 3


def test_lazy_layers_get_their_weights_before_a_network_is_traced() -> None:
    net = graft_network("planted_networks:LearnsItsWidth:at=add", "aff", shapes=[(2, 3, 8, 8)])
    assert net.f.weight.shape == (4, 4, 3, 3)
    assert net(images()).shape == (2, 5)


def test_an_image_that_does_not_fit_into_memory_is_refused_before_any_work() -> None:
    with pytest.raises(TooLarge, match="the network needs at least"):
        CliRunner().invoke(app, ["graft", "planted_networks:Net", "--size", "99999999"], catch_exceptions=False)


def test_inference_mode_inside_a_forward_is_refused_and_works_afterwards() -> None:
    with pytest.raises(LoadError, match=r"the forward of Infers turns on torch\.inference_mode") as refused:
        graft(Infers(), [images()], ADD)
    assert "torch.no_grad" in (refused.value.hint or "")
    with torch.inference_mode():
        assert torch.ones(1).is_inference()


def test_a_part_with_a_hook_on_its_backward_pass_is_refused_by_its_name() -> None:
    net = Net()
    net.f.register_full_backward_hook(lambda _module, given, _taken: tuple(x * 2 for x in given))
    with pytest.raises(LoadError, match="f of Net has a hook on its backward pass"):
        graft(net, [images()], ADD)


class Frozen(Net):
    """A norm that the class keeps as it is in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.norm(self.f(x))

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.norm.eval()
        return self


def test_what_a_class_freezes_stays_frozen_and_what_is_frozen_afterwards_is_refused() -> None:
    net = Frozen()
    same = copy.deepcopy(net)
    graft(net, [images()], ADD)
    assert differences(same, net, [images()]) == []
    net.train().f.eval()
    with pytest.raises(LoadError, match="f is in eval mode while Frozen is trained"):
        net(images())


class MakesAConstant(Net):
    """A tensor made of numbers in forward."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.f(x) * torch.tensor([2.0])


def test_a_copy_of_before_a_mode_was_traced_has_what_that_mode_needs() -> None:
    net = MakesAConstant()
    graft(net, [images()], ADD, modes=("eval",))
    copied = copy.deepcopy(net)
    assert torch.equal(copied.train()(images()), net.train()(images()))
