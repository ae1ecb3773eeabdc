"""What a trace leaves behind when it is stopped: nothing; a part traced alone; a torch that has moved its parts."""

from __future__ import annotations

import importlib
import logging
import random
import sys
import warnings

import numpy
import pytest
import torch
from planted_networks import Net, conv
from torch import nn
from torch.autograd import Function
from torch.fx.proxy import TracerBase

from afftool.errors import LoadError, SpecError
from afftool.graft import own_gradients
from afftool.graft.network import Survey
from afftool.graft.torch_version import WORKS
from afftool.hosts import build_host
from afftool.spec import FusionSpec, HostSpec

IMAGE = torch.zeros(2, 3, 8, 8)


class Stopped(Net):
    """Someone loses patience in the middle of it."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        warnings.simplefilter("error")
        random.random()
        numpy.random.rand()
        raise KeyboardInterrupt


def surroundings() -> tuple[object, ...]:
    return (
        vars(Function)["apply"],
        vars(TracerBase)["_filter_traceback_frames"],
        logging.root.manager.disable,
        list(warnings.filters),
        sys.stderr,
        random.getstate(),
        numpy.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
    )


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_trace_that_is_stopped_leaves_everything_as_it_was(mode: str) -> None:
    net = Stopped()
    before, training = surroundings(), net.training
    with pytest.raises(KeyboardInterrupt):
        Survey((IMAGE,)).look(net, mode)  # type: ignore[arg-type]
    assert surroundings() == before
    assert net.training == training
    assert len(Survey((IMAGE,)).look(Net(), "eval").sites) == 1


class Backbone(nn.Module):
    """One addition, and a part that is called with more than tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.f, self.scaled = conv(3), conv(), Scaled()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        y: torch.Tensor = self.scaled(x + self.f(x), 2.0)
        return y


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor, by: float) -> torch.Tensor:
        return x * by


class Detector(nn.Module):
    """What it does depends on the values of its maps: as a whole it has no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.unused, self.head = Backbone(), conv(), nn.Linear(4, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(image)
        rows: torch.Tensor = self.head(maps.mean((2, 3)))
        return rows if maps.mean() > 0 else -rows


class Picks(Detector):
    """It picks the rows that it goes on with: how many depends on their values, and a graph can say so."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = self.backbone(image)
        found = maps.amax(1).flatten(1) > maps.mean()
        picked = maps.flatten(2).transpose(1, 2)[found]
        rows: torch.Tensor = self.head(picked + picked.relu())
        return rows


def detector(keys: str = "", fusion: str = "add", kind: str = "Detector") -> nn.Module:
    host = HostSpec.parse(f"graft:{__name__}:{kind}{keys}")
    return build_host(host, FusionSpec.parse(fusion), shapes=[(2, 3, 8, 8)], modes=("eval",)).eval()


def test_a_network_that_goes_by_its_values_is_refused_with_the_line_and_the_way_out() -> None:
    with pytest.raises(LoadError, match=r"Detector cannot be exported: .*test_trace.py:\d+ `return rows if") as refused:
        detector()
    assert "--inside backbone" in (refused.value.hint or "")


def test_sizes_that_depend_on_values_are_neither_sites_nor_in_the_way() -> None:
    net, plain = detector(kind="Picks"), Picks().eval()
    plain.load_state_dict(net.state_dict())
    for size in (8, 12):
        image = torch.randn(3, 3, size, size)
        assert torch.equal(net(image), plain(image))


def test_a_part_of_it_is_grafted_and_the_rest_stays_as_it_is() -> None:
    net, plain = detector(":inside=backbone"), Detector().eval()
    missing, unexpected = plain.load_state_dict(net.state_dict(), strict=False)
    assert (missing, unexpected) == ([], [])  # an addition has no weights
    image = torch.randn(3, 3, 8, 8)
    assert torch.equal(net(image), plain(image))
    named = set(detector(":inside=backbone", "aff:reduction=2").state_dict()) - set(plain.state_dict())
    assert named
    assert all(name.startswith("backbone.fusions.1.") for name in named)


@pytest.mark.parametrize(
    ("part", "said", "hint"),
    [
        ("neck", "Detector has no part 'neck'", "its parts are backbone, unused, head"),
        ("unused", "the part unused is not called with tensors alone", "or one inside of it"),
        ("backbone.scaled", "the part backbone.scaled is not called with tensors alone", "or one inside of it"),
    ],
)
def test_a_part_that_cannot_be_traced_alone_is_refused(part: str, said: str, hint: str) -> None:
    with pytest.raises(SpecError, match=said) as refused:
        detector(f":inside={part}")
    assert hint in (refused.value.hint or "")


@pytest.mark.parametrize("gone", ["torch._export.wrappers", "torch._higher_order_ops.flat_apply"])
def test_a_torch_that_has_moved_what_a_graft_needs_is_told_by_its_version(
    gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, gone, None)
    importlib.reload(own_gradients)  # afftool itself imports without it
    with pytest.raises(LoadError, match=f"torch {torch.__version__.split('+')[0]}.* does not have .*{gone}") as refused:
        Survey((IMAGE,)).look(Net(), "eval")
    assert WORKS in (refused.value.hint or "")


def test_a_torch_whose_graphs_no_longer_tell_their_inputs_is_told_by_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = torch.fx.symbolic_trace(nn.ReLU())
    monkeypatch.setattr(torch.export.ExportedProgram, "module", lambda _program: plain)
    with pytest.raises(LoadError, match=r"does not have what a graft is made with: .*pytree_info"):
        Survey((IMAGE,)).look(Net(), "eval")
