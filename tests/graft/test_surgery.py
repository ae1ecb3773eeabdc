"""What a fusion is given at its site, what is left around it, which sites share one, and what its adapters cost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from planted_networks import WIDTH, CalledTwice, Concatenates, InPlace, Net, Repeated, conv
from torch import nn
from torch.nn import functional as F

from afftool.errors import SpecError
from afftool.fusion import FusionFactory, fusion_factory
from afftool.graft.join import Joint, adapter_params
from afftool.graft.network import Survey, graft
from afftool.spec import FusionSpec
from afftool.spec.graft import Selection

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
AFF = fusion_factory(FusionSpec.parse("aff:reduction=2"))


class Gives(nn.Module):
    """A fusion that gives one of its maps back."""

    def __init__(self, which: int) -> None:
        super().__init__()
        self.which = which

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        return maps[self.which]


def gives(which: int) -> FusionFactory:
    return lambda channels, **_: Gives(which)


def grafted(
    net: nn.Module, fusion: FusionFactory, selection: Selection | None = None, share: bool = False
) -> nn.Module:
    return graft(net, [IMAGE], fusion, selection, share=share, modes=("eval",)).eval()


class BranchFirst(Net):
    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = self.f(x)
        return y + x


class Method(Net):
    """An addition by a method, the branch first."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.f(x).add(x)


class Projected(Net):
    """A skip of one layer past a branch of two, written before and after it."""

    def __init__(self, skip_first: bool = True) -> None:
        super().__init__()
        self.skip_first = skip_first
        self.g, self.side = conv(), nn.Conv2d(WIDTH, WIDTH, 1)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        if self.skip_first:
            side = self.side(x)
            return self.g(self.f(x).relu()) + side
        return self.g(self.f(x).relu()) + self.side(x)


class Up(Net):
    """A map from below, enlarged, beside an older one, as a U-Net has them."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.low, self.head = conv(stride=2), conv(), nn.Linear(2 * WIDTH, 5)

    def enlarged(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.low(self.down(x)), scale_factor=2)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.enlarged(x), x], 1)


def head_of(net: Net, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = net.head(x.mean((2, 3)))
    return made


@pytest.mark.parametrize("kind", [Net, BranchFirst, Method, InPlace])
def test_the_skip_is_given_first_and_the_branch_second_however_their_sum_is_written(kind: type[Net]) -> None:
    net = kind()
    x = net.stem(IMAGE)
    y = net.f(x)
    after: Callable[[torch.Tensor], torch.Tensor] = (lambda z: net.f(z.relu())) if kind is InPlace else (lambda z: z)
    wanted = [head_of(net, after(one)) for one in (x, y)]
    given = [grafted(_copy(net), gives(which))(IMAGE) for which in (0, 1)]
    assert torch.equal(given[0], wanted[0])
    assert torch.equal(given[1], wanted[1])


def _copy(net: nn.Module) -> nn.Module:
    twin = type(net)()
    twin.load_state_dict(net.state_dict())
    return twin


@pytest.mark.parametrize("skip_first", [True, False])
def test_a_projected_skip_is_still_the_skip(skip_first: bool) -> None:
    net = Projected(skip_first)
    x = net.stem(IMAGE)
    skip, branch = net.side(x), net.g(net.f(x).relu())
    for which, wanted in enumerate((skip, branch)):
        twin = Projected(skip_first)
        twin.load_state_dict(net.state_dict())
        assert torch.equal(grafted(twin, gives(which))(IMAGE), head_of(net, wanted))


def test_of_a_concatenation_the_map_from_above_is_the_skip_and_the_enlarged_one_the_branch() -> None:
    net = Up()
    x = net.stem(IMAGE)
    for which, wanted in enumerate((x, net.enlarged(x))):
        made = grafted(_copy(net), gives(which))
        expand = made.get_submodule("fusions.1.expand")
        assert torch.equal(made(IMAGE), head_of(net, expand(wanted)))


def test_an_activation_after_an_addition_stays() -> None:
    net = Repeated()
    x = net.stem(IMAGE)
    for block in net.blocks:
        x = block.f(x).relu()
    x = net.down(x)
    assert torch.equal(grafted(_copy(net), gives(1))(IMAGE), head_of(net, net.last.f(x).relu()))


def test_each_repeat_of_a_block_has_a_fusion_of_its_own_and_share_makes_them_one() -> None:
    own, shared = (grafted(Repeated(), AFF, share=share).get_submodule("fusions") for share in (False, True))
    assert [name for name, _ in own.named_children()] == ["1", "2", "3", "4"]
    assert [name for name, _ in shared.named_children()] == ["1", "4"]  # the last is wider


def test_a_shared_fusion_is_called_at_each_of_its_sites_and_learns_from_all() -> None:
    calls: list[int] = []

    class Counted(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(channels, 1, 1))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            calls.append(id(self))
            return x * self.scale + y

    net = grafted(Repeated(), lambda channels, **_: Counted(channels), share=True)
    calls.clear()
    net(IMAGE).sum().backward()
    assert [calls.count(id(net.get_submodule(f"fusions.{n}"))) for n in (1, 4)] == [3, 1]
    assert all(parameter.grad is not None for parameter in net.get_submodule("fusions").parameters())


def test_two_additions_on_one_line_do_not_share() -> None:
    class OnOneLine(Net):
        def body(self, x: torch.Tensor) -> torch.Tensor:
            return (x + self.f(x)).relu() + self.f(self.f(x))

    fusions = grafted(OnOneLine(), AFF, share=True).get_submodule("fusions")
    assert [name for name, _ in fusions.named_children()] == ["1", "2"]


@pytest.mark.parametrize("share", [False, True])
def test_a_block_that_is_called_twice_has_two_fusions(share: bool) -> None:
    fusions = grafted(CalledTwice(), AFF, share=share).get_submodule("fusions")
    assert [name for name, _ in fusions.named_children()] == ["1", "2"]


def test_adapters_make_maps_of_unequal_widths_fit_and_are_counted() -> None:
    plain, net = Concatenates(), Concatenates()
    survey = Survey((IMAGE,)).look(plain, "eval")
    grafted(net, AFF)
    for site in survey.sites:
        joint = net.get_submodule(f"fusions.{site.number}")
        assert isinstance(joint, Joint)
        maps = [torch.rand(3, channels, 4, 4) for channels in site.channels]
        assert joint(*maps).shape == (3, site.out, 4, 4)
        adapters = sum(p.numel() for name, p in joint.named_parameters() if not name.startswith("fusion."))
        assert adapters == adapter_params(site) > 0
        assert [isinstance(one, nn.Identity) for one in joint.project] == [c == site.width for c in site.channels]
    assert net(IMAGE).shape == plain(IMAGE).shape


def test_an_addition_has_no_adapter() -> None:
    net = grafted(Repeated(), gives(0))
    assert not list(net.get_submodule("fusions").parameters())
    assert {adapter_params(site) for site in Survey((IMAGE,)).look(Repeated(), "eval").sites} == {0}


def test_only_the_sites_that_are_meant_are_replaced() -> None:
    net = grafted(Repeated(), AFF, Selection(at=("2-4",), stages=(1,)))
    assert [name for name, _ in net.get_submodule("fusions").named_children()] == ["2", "3"]


def test_a_choice_of_sites_that_the_network_does_not_have_leaves_it_as_it_was() -> None:
    net = Repeated()
    before = list(net.state_dict())
    with pytest.raises(SpecError, match="there is no site 7: its sites are 1 to 4"):
        grafted(net, AFF, Selection(at=("7",)))
    assert type(net) is Repeated
    assert list(net.state_dict()) == before


def test_a_fusion_that_cannot_be_made_leaves_the_network_as_it_was() -> None:
    def refused(channels: int, **_: object) -> nn.Module:
        raise SpecError("no such width", hint="another")

    net = Repeated()
    before = list(net.state_dict())
    with pytest.raises(SpecError, match=r"at site 1 \(add in blocks.0\): no such width"):
        grafted(net, refused)
    assert type(net) is Repeated
    assert list(net.state_dict()) == before
