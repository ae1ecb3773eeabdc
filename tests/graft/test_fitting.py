"""A module of the user's own that does not fit a site is found when it is put there, before anything is run."""

from __future__ import annotations

import pytest
import torch
from networks_to_graft import ByValue, HalfAsWide, OneSize, OnItsOwnWidth, UNet
from torch import nn

from afftool.errors import LoadError, ShapeError
from afftool.graft.network import graft
from afftool.spec.graft import Selection

IMAGE = torch.zeros(2, 3, 16, 16)


def test_a_fusion_that_gives_another_shape_is_refused_with_both_and_the_site() -> None:
    with pytest.raises(ShapeError, match=r"HalfAsWide at site 1 \(add in top.0, .*\) gives 2x8x16x8 .* 2x8x16x16"):
        graft(UNet(), [IMAGE], lambda channels, **_: HalfAsWide(channels), modes=("eval",))


def test_a_fusion_that_fits_one_width_alone_is_refused_at_the_first_site_of_another() -> None:
    with pytest.raises(LoadError, match=r"OnItsOwnWidth at site 3 .* does not run on 2x16x8x8 and 2x16x8x8") as refused:
        graft(UNet(), [IMAGE], lambda channels, **_: OnItsOwnWidth(), Selection(at=("add",)), modes=("eval",))
    assert "at=1-2" in str(refused.value.hint)


def test_a_fusion_that_gives_no_map_is_refused() -> None:
    class Pair(nn.Module):
        def forward(self, x, y):
            return x, y

    with pytest.raises(ShapeError, match="gives a tuple, not a map"):
        graft(UNet(), [IMAGE], lambda channels, **_: Pair(), modes=("eval",))


def test_a_fusion_that_looks_at_values_is_left_to_its_first_call() -> None:
    grafted = graft(UNet().eval(), [IMAGE], lambda channels, **_: ByValue(channels), Selection(at=("add",)))
    assert torch.equal(grafted(IMAGE), grafted(IMAGE))


def test_the_check_changes_neither_buffers_nor_the_random_state() -> None:
    class Normed(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.norm, self.drop = nn.BatchNorm2d(channels), nn.Dropout()

        def forward(self, x, y):
            return self.drop(self.norm(x)) + y

    torch.manual_seed(3)
    grafted = graft(UNet(), [IMAGE], lambda channels, **_: Normed(channels), Selection(at=("1",)), modes=("train",))
    drawn = torch.rand(())
    torch.manual_seed(3)
    graft(UNet(), [IMAGE], None, modes=("train",))
    assert drawn == torch.rand(())
    norm = grafted.get_submodule("fusions.1.norm")
    assert norm.num_batches_tracked == 0


def test_a_size_that_the_network_itself_does_not_run_on_is_not_called_a_failed_export() -> None:
    with pytest.raises(LoadError, match=r"OneSize does not run on \(2, 3, 8, 8\): .*reshape") as refused:
        graft(OneSize(), [torch.zeros(2, 3, 8, 8)], None, modes=("eval",))
    assert "--size" in str(refused.value.hint)
