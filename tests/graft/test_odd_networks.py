"""Networks that do what few do: what a graft keeps of it, and what it refuses."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
from planted_networks import Net
from same_network import differences
from torch import nn

from afftool.errors import LoadError
from afftool.fusion import fusion_factory
from afftool.graft.network import graft
from afftool.spec import FusionSpec

ADD = fusion_factory(FusionSpec.parse("add"))


def images() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(8))


class Exits(Net):
    """A forward that ends the process, as a script's does that finds no weights."""

    def forward(self, image: torch.Tensor) -> Any:
        sys.exit(4)


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
