"""What is found where a network joins maps, and which of them are meant."""

from __future__ import annotations

import pytest
import torch
from planted_networks import WIDTH, CalledTwice, ChannelsLast, Concatenates, Net, Repeated, Weighted, conv
from torch import nn
from torch.nn import functional as F

from afftool.errors import SpecError
from afftool.graft.network import Survey
from afftool.spec.graft import Selection
from afftool.spec.site import Site


def survey(net: nn.Module, *shapes: tuple[int, ...]) -> Survey:
    return Survey(tuple(torch.rand(shape) for shape in shapes or ((2, 3, 8, 8),))).look(net, "eval")


def sites(net: nn.Module) -> tuple[Site, ...]:
    return survey(net).sites


@pytest.fixture(scope="module")
def repeated() -> Survey:
    return survey(Repeated())


def test_a_site_is_told_by_its_module_line_width_size_and_stage() -> None:
    found = sites(Repeated())
    assert [(site.number, site.path, site.channels, site.size, site.stage) for site in found] == [
        (1, "blocks.0", (4, 4), (8, 8), 1),
        (2, "blocks.1", (4, 4), (8, 8), 1),
        (3, "blocks.2", (4, 4), (8, 8), 1),
        (4, "last", (8, 8), (4, 4), 2),
    ]
    assert {site.code for site in found} == {"return F.relu(x + self.f(x))"}
    assert len({site.line for site in found}) == 1
    assert [site.alike for site in found] == [3, 3, 3, 1]


def test_the_line_is_that_of_the_addition_in_a_helper_too() -> None:
    assert sites(Net())[0].code == "return x + self.f(x)"


def test_a_module_that_is_called_twice_has_two_sites() -> None:
    assert [(site.path, site.nth) for site in sites(CalledTwice())] == [("block", 0), ("block", 1)]


@pytest.mark.parametrize(
    ("kind", "why"),
    [(Weighted, "0.5 times a map"), (ChannelsLast, "the last dimension"), (Concatenates, "with itself")],
)
def test_what_joins_maps_and_is_no_site_is_said_with_the_reason(kind: type[Net], why: str) -> None:
    (left,) = survey(kind()).left
    assert why in left.why
    assert left.line.startswith("planted_networks.py:")


def test_maps_of_a_concatenation_go_by_age_whatever_their_order_is() -> None:
    first, second = sites(Concatenates())
    assert first.channels == (WIDTH, 6)
    assert (second.width, second.out, second.equal) == (WIDTH + 6, 2 * WIDTH + 6, False)


class Long(Net):
    """One level down and up again, and its input beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = conv(stride=2), nn.ConvTranspose2d(WIDTH, WIDTH, 2, 2)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(F.relu(self.down(x)))


class Inception(Net):
    """Branches of one layer, concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.g, self.head = nn.Conv2d(WIDTH, WIDTH, 1), nn.Linear(2 * WIDTH, 5)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.f(x), self.g(x)], 1)


@pytest.mark.parametrize(
    ("kind", "scenario"),
    [(Long, "long-skip"), (Net, "short-skip"), (Repeated, "short-skip"), (Inception, "same-layer")],
)
def test_the_scenario_is_the_papers(kind: type[Net], scenario: str) -> None:
    assert {site.scenario for site in sites(kind())} == {scenario}


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [
        (Selection(), [1, 2, 3, 4]),
        (Selection(at=("1", "3-4")), [1, 3, 4]),
        (Selection(stages=(2,)), [4]),
        (Selection(path="blocks.[01]"), [1, 2]),
        (Selection(path="blocks.*", at=("2-4",)), [2, 3]),
        (Selection(scenarios=("short-skip",), only_equal=True), [1, 2, 3, 4]),
        (Selection(at=("none",)), []),
    ],
)
def test_sites_are_chosen_by_number_stage_path_and_scenario(
    repeated: Survey, selection: Selection, numbers: list[int]
) -> None:
    assert [site.number for site in repeated.chosen(selection)] == numbers


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        (Selection(at=("2-9",)), "there is no site 9: its sites are 1 to 4"),
        (Selection(stages=(3,)), "there is no stage 3: its stages are 1 to 2"),
        (Selection(at=("concat",)), "no site of the network is meant by concat: it has 4"),
    ],
)
def test_sites_that_are_not_there_are_refused_with_those_that_are(
    repeated: Survey, selection: Selection, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        repeated.chosen(selection)


def test_a_network_that_joins_nothing_has_no_site() -> None:
    with pytest.raises(SpecError, match="it adds and concatenates no maps"):
        survey(nn.Sequential(conv(3), nn.ReLU())).chosen(Selection())


def test_only_equal_leaves_unequal_concatenations_out() -> None:
    with pytest.raises(SpecError, match="only_equal=true: it has 2"):
        survey(Concatenates()).chosen(Selection(only_equal=True))


def test_an_addition_to_what_no_input_reaches_is_no_site() -> None:
    class Shifted(Net):
        def body(self, x: torch.Tensor) -> torch.Tensor:
            return self.f(x) + torch.ones(x.shape)

    assert sites(Shifted()) == ()
