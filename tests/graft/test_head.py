"""A network gets as many classes as are asked for, and is otherwise what it was."""

import pytest
import torch
from graftable import Dict, Headless, Net, Segmenter
from torch import nn

from afftool.errors import LoadError, SpecError
from afftool.graft.head import give_classes

IMAGES = (torch.zeros(2, 3, 8, 8),)


def test_the_head_is_found_and_everything_else_keeps_its_weights() -> None:
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given = give_classes(net, IMAGES, 5)
    assert given.fc.out_features == 5
    after = given.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith("fc."))


def test_a_network_that_gives_so_many_classes_already_is_left_as_it_is() -> None:
    head = (net := Net()).fc
    assert give_classes(net, IMAGES, 7).fc is head
    assert give_classes(Headless(), IMAGES, 14)(*IMAGES).shape == (2, 14)


def test_a_head_of_pixels_keeps_what_its_convolution_does() -> None:
    net = Segmenter()
    net.head = nn.Conv2d(16, 2, 3, padding=2, dilation=2, bias=False, padding_mode="reflect")
    head = give_classes(net, IMAGES, 4).head
    assert net(*IMAGES).shape == (2, 4, 8, 8)
    assert (head.padding, head.dilation, head.bias, head.padding_mode) == ((2, 2), (2, 2), None, "reflect")


def test_the_entry_that_counts_tells_which_layer_gives_it() -> None:
    given = give_classes(Dict(), IMAGES, 3, entry="logits")
    assert given(*IMAGES)["logits"].shape == (2, 3)
    with pytest.raises(LoadError, match="2 tensors") as refused:
        give_classes(Dict(), IMAGES, 3)
    assert "of features, logits" in str(refused.value.hint)


def test_a_network_keeps_its_mode_its_statistics_and_its_type() -> None:
    net = Net().double().train()
    seen = net.stages[0].skip[1].num_batches_tracked.clone()
    given = give_classes(net, (IMAGES[0].double(),), 3)
    assert given.training
    assert given.fc.weight.dtype == torch.float64
    assert torch.equal(net.stages[0].skip[1].num_batches_tracked, seen)


def test_one_that_does_not_run_is_told_with_the_shapes_it_was_given() -> None:
    with pytest.raises(LoadError, match=r"Net does not run on \(2, 1, 8, 8\)"):
        give_classes(Net(), (torch.zeros(2, 1, 8, 8),), 3)
    with pytest.raises(SpecError, match="head=nothing"):
        give_classes(Net(), IMAGES, 3, "nothing")
