"""Modules of other people's: how they name their width, take their maps, and what they leave of few channels."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from afftool.errors import LoadError, UnknownKey
from afftool.fusion import build_fusion
from afftool.fusion.own import say_assumptions, settled
from afftool.hosts import build_host
from afftool.spec import FusionSpec, HostSpec

FILE = '''
from __future__ import annotations
from typing import List
import torch
from torch import nn

class Keeps(nn.Module):
    """Remembers what it was made of, and adds its two maps."""
    def __init__(self, **got):
        super().__init__()
        self.got = got
    def forward(self, x, y):
        return x + y

def in_channels(in_channels, ratio=4): return Keeps(w=in_channels, r=ratio)
def camel(inChannels): return Keeps(w=inChannels)
def in_planes(in_planes): return Keeps(w=in_planes)
def dim(dim, num_heads=2): return Keeps(w=dim)
def embed_dim(embed_dim): return Keeps(w=embed_dim)
def planes(planes): return Keeps(w=planes)
def nf(nf): return Keeps(w=nf)
def in_out(in_channels, out_channels, k=3): return Keeps(w=in_channels, o=out_channels)
def c1_c2(c1, c2): return Keeps(w=c1, o=c2)
def inp_oup(inp, oup): return Keeps(w=inp, o=oup)
def inplanes_planes(inplanes, planes): return Keeps(w=inplanes, o=planes)
def channels_out(channels, out_channels): return Keeps(w=channels, o=out_channels)
def default(in_channels=256, out_channels=256): return Keeps(w=in_channels, o=out_channels)
def joined_along(channels, dim=1): return Keeps(w=channels, o=dim)
def along(dim=1): return Keeps(w=dim)
def open_ended(in_chs, **more): return Keeps(w=in_chs, **more)
def two_widths(low_channels, high_channels): return Keeps(w=low_channels, o=high_channels)
def unclear(dim, width): return Keeps(w=dim, o=width)
def gate_channels(gate_channels, pool_types=("avg", "max")): return Keeps(w=gate_channels)
def residual(residual_channels, kernel_size=3): return Keeps(w=residual_channels)
def hidden(hidden_dim): return Keeps(w=hidden_dim)
def warns(channels):
    import warnings
    warnings.warn("old-fashioned")
    return Keeps(w=channels)
def level(level): return Keeps(w=level)
def width_list(channels_list): return Keeps(w=channels_list[0])
def listed(widths): return Keeps(w=widths)

def needs_r(c, r): return Keeps(w=c, r=r)
def fraction(channels, rd_ratio=1 / 16): return Keeps(w=channels, r=rd_ratio)
def plain(channels): return Keeps(w=channels)

class ListIn(nn.Module):
    def __init__(self, c1):
        super().__init__()
        self.proj = nn.Conv2d(2 * c1, c1, 1)
    def forward(self, maps):
        return self.proj(torch.cat(maps, 1))

class Annotated(nn.Module):
    def forward(self, x: List[torch.Tensor], size=None):
        assert size is None
        return sum(x)

class OneMap(nn.Module):
    def forward(self, x: torch.Tensor):
        return 2 * x

class Unclear(nn.Module):
    def forward(self, x, size=None):
        return sum(x)

class Patched(nn.Module):
    """Swaps its forward when it is made, as detectors do for deployment."""
    def __init__(self):
        super().__init__()
        self.forward = self.forward_list
    def forward_list(self, maps):
        return sum(maps)

class Three(nn.Module):
    def forward(self, x, y, z):
        return x + y + z

class Any(nn.Module):
    def forward(self, *maps):
        return sum(maps)

class SE(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, channels // reduction), nn.Linear(channels // reduction, channels))
    def forward(self, x, y):
        return x

class Grouped(nn.Module):
    def __init__(self, channels, groups=6, kind="conv"):
        super().__init__()
        self.layer = {
            "conv": lambda: nn.Conv2d(channels, channels, 1, groups=groups),
            "norm": lambda: nn.GroupNorm(groups, channels),
            "heads": lambda: nn.MultiheadAttention(channels, groups),
            "less": lambda: nn.Conv2d(channels, channels, 1, groups=channels // 16),
            "zero": lambda: nn.GroupNorm(channels // 16, channels),
            "parts": lambda: channels % (channels // 16),
            "matrix": lambda: setattr(self, "w", nn.Parameter(torch.randn(channels // 16, channels))),
        }[kind]()
    def forward(self, x, y):
        return x

class Placeholder(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.unused = nn.Parameter(torch.empty(0))
    def forward(self, x, y):
        return x
'''


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_styles.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("afftool.fusion.own._assumed", {})
    path = list(sys.path)
    yield
    sys.modules.pop("own_styles", None)
    sys.path[:] = path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    say_assumptions()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("in_channels", "in_channels"),
        ("camel", "inChannels"),
        ("in_planes", "in_planes"),
        ("dim", "dim"),
        ("embed_dim", "embed_dim"),
        ("planes", "planes"),
        ("nf", "nf"),
        ("in_out", "in_channels and out_channels"),
        ("c1_c2", "c1 and c2"),
        ("inp_oup", "inp and oup"),
        ("inplanes_planes", "inplanes and planes"),
        ("channels_out", "out_channels"),
        ("default", "in_channels and out_channels"),
        ("open_ended", "in_chs"),
        ("gate_channels", "gate_channels"),
        ("residual", "residual_channels"),
    ],
)
def test_a_width_under_another_name_is_found_and_said_once(name, keys, capsys) -> None:
    got = build_fusion(f"own_styles:{name}", channels=24).got
    assert (got["w"], got.get("o", 24)) == (24, 24)
    assert "channels" not in got  # nothing is passed on beside it
    verb = "are" if " and " in keys else "is"
    told = said(capsys)
    assert f"own_styles:{name}: {keys} {verb} taken for the width; say own_styles:{name}:" in told
    text = told.split("; say ")[1].split(" to be sure")[0]
    build_fusion(f"own_styles:{name}", channels=16)
    build_fusion(text, channels=16)
    assert said(capsys) == ""  # and what it said to write needs no guess


@pytest.mark.parametrize("name", ["joined_along", "along"])
def test_a_default_that_is_no_width_stays(name, capsys) -> None:
    assert build_fusion(f"own_styles:{name}", channels=24).got.get("o", 1) == 1
    assert said(capsys) == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("two_widths", "own_styles:two_widths:low_channels={channels}:high_channels={channels}"),
        ("unclear", "own_styles:unclear:dim={channels}:width={channels}"),
        ("level", "own_styles:level:level={channels}"),
        ("hidden", "own_styles:hidden:hidden_dim={channels}"),
        ("width_list", "own_styles:width_list:channels_list=[{channels},{channels}]"),
    ],
)
def test_where_no_candidate_is_obvious_the_error_is_a_text_that_works(name, told) -> None:
    with pytest.raises(LoadError) as caught:
        build_fusion(f"own_styles:{name}", channels=24)
    assert f"`{told}`" in str(caught.value)
    assert build_fusion(told, channels=24).got["w"] == 24


def test_what_a_constructor_warns_of_is_told_once_however_often_it_is_built() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            build_fusion("own_styles:warns", channels=4)
    assert [str(one.message) for one in told] == ["old-fashioned"]


def test_a_width_that_is_told_is_filled_in_and_nothing_else_is_passed_on() -> None:
    assert build_fusion("own_styles:open_ended:in_chs={channels}:k={channels//8}", channels=24).got == {"w": 24, "k": 3}
    assert build_fusion("own_styles:listed:widths=[{channels},{channels*2}]", channels=24).got["w"] == [24, 48]
    assert build_fusion("own_styles:in_out:out_channels=7", channels=24).got == {"w": 24, "o": 7}


@pytest.mark.parametrize("text", ["in_channels:in_channels={channels}", "in_channels", "c1_c2", "ListIn"])
def test_a_host_builds_such_a_module_at_each_of_its_widths(text) -> None:
    host = build_host(HostSpec.parse("resnet:b=1"), FusionSpec.parse(f"own_styles:{text}"))
    fusions = [part for name, part in host.named_modules() if name.endswith("fuse")]
    widths = [part.proj.out_channels if text == "ListIn" else part.got["w"] for part in fusions]
    assert widths == [16, 32, 64]
    assert host(torch.randn(1, 3, 8, 8)).shape == (1, 100)


def test_a_reduction_goes_by_the_name_the_signature_has_and_keeps_its_own_default(capsys) -> None:
    assert build_fusion("own_styles:in_channels:in_channels={channels}", channels=8).got["r"] == 4
    assert build_fusion("own_styles:in_channels:in_channels={channels}", channels=8, reduction=2).got["r"] == 2
    assert build_fusion("own_styles:needs_r:c={channels}", channels=8).got["r"] == 4
    assert build_fusion("own_styles:fraction", channels=8).got["r"] == 1 / 16
    assert build_fusion("own_styles:fraction", channels=8, reduction=2).got["r"] == 0.5
    told = said(capsys)
    assert "reduction is given as ratio=2" in told
    assert "r is taken for the reduction, 4" in told
    with pytest.raises(UnknownKey, match="takes no key 'reduction'"):
        build_fusion("own_styles:plain", channels=8, reduction=2)


def test_one_list_of_maps_is_given_where_forward_takes_one_argument(capsys) -> None:
    module = build_fusion("own_styles:ListIn:c1={channels}", channels=4)
    x, y = torch.randn(2, 1, 4, 3, 3).unbind(0)
    assert torch.equal(module(x, y), module.proj(torch.cat([x, y], 1)))
    assert list(dict(module.named_parameters())) == ["proj.weight", "proj.bias"]  # it is the user's module itself
    assert type(module).__name__ == "ListIn"
    twin = copy.deepcopy(module)
    torch.nn.init.zeros_(twin.proj.weight)
    assert torch.equal(twin(x, y), twin.proj.bias[:, None, None].expand(1, 4, 3, 3))  # a copy calls itself
    assert "it is given one list of maps; say own_styles:ListIn:c1={channels}:call=list to be sure" in said(capsys)


def test_how_a_module_is_called_is_told_or_found_and_then_said(capsys) -> None:
    x, y = torch.randn(2, 1, 4, 3, 3).unbind(0)
    for text in ("Annotated", "Unclear:call=list", "Patched:call=list", "Patched", "Any"):
        assert torch.equal(build_fusion(f"own_styles:{text}", channels=4)(x, y), x + y)
    told = said(capsys)
    assert told.count("one list of maps") == 1
    assert "own_styles:Patched: its forward takes one argument" in told
    assert torch.equal(build_fusion("own_styles:OneMap:inputs=1", channels=4)(x), 2 * x)
    assert build_fusion("own_styles:Any:inputs=3", channels=4)(x, y, y).shape == x.shape


@pytest.mark.parametrize(
    ("text", "says", "works"),
    [
        ("own_styles:Three", "takes 3 maps (x, y, z), and it would be given 2", "own_styles:Three:inputs=3"),
        ("own_styles:OneMap", "takes no more than 1 map (x), and it would be given 2", "own_styles:OneMap:inputs=1"),
        ("own_styles:Three:inputs=4", "takes no more than 3 maps", "own_styles:Three:inputs=3"),
        ("own_styles:plain:inputs=3", "takes no more than 2 maps", "own_styles:plain:inputs=2"),
    ],
)
def test_another_number_of_maps_than_forward_takes_is_refused_with_the_text_that_works(text, says, works) -> None:
    with pytest.raises(LoadError) as caught:
        build_fusion(text, channels=4)
    assert says in str(caught.value)
    assert f"`{works}`" in str(caught.value)
    build_fusion(works, channels=4)


def test_a_class_that_needs_three_maps_is_found_before_anything_is_built(capsys) -> None:
    assert settled(FusionSpec.parse("own_styles:Three")).text == "own_styles:Three:inputs=3"
    assert "own_styles:Three: its forward takes 3 maps; say own_styles:Three:inputs=3 to be sure" in said(capsys)
    for text in ("own_styles:plain", "own_styles:Any", "own_styles:ListIn", "own_styles:Three:maps=c@s+c@s+c@s", "aff"):
        assert settled(FusionSpec.parse(text)) == FusionSpec.parse(text)


@pytest.mark.parametrize("text", ["SE", "Grouped:kind=matrix"])
def test_a_hidden_width_of_0_is_said_as_that_and_torchs_warning_is_not_heard(text) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LoadError, match="its hidden width is 0 at 8 channels"):
            build_fusion(f"own_styles:{text}", channels=8)
        build_fusion(f"own_styles:{text}", channels=32)


def test_a_host_says_at_which_of_its_widths_it_vanishes() -> None:
    with pytest.raises(LoadError, match="its hidden width is 0 at 16 channels"):
        build_host(HostSpec.parse("resnet:b=1"), FusionSpec.parse("own_styles:SE:reduction=32"))


def test_an_empty_vector_that_nobody_multiplies_by_is_no_width() -> None:
    build_fusion("own_styles:Placeholder", channels=8)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("conv", "its Conv2d has 6 groups, which do not divide its 8 channels"),
        ("norm", "its GroupNorm has 6 groups, which do not divide its 8 channels"),
        ("heads", "its MultiheadAttention has 6 heads, which do not divide its 8 channels"),
        ("less", "its Conv2d would have 0 groups"),
        ("zero", "its GroupNorm would have 0 groups"),
        ("parts", "it divides by 0: a width or a number of groups"),
    ],
)
def test_groups_that_do_not_divide_are_said_with_the_width(kind, says) -> None:
    with pytest.raises(LoadError) as caught:
        build_fusion(f"own_styles:Grouped:kind={kind}", channels=8)
    assert "cannot be built at 8 channels" in str(caught.value)
    assert says in str(caught.value)
    assert "channels=8" in str(caught.value)  # what it was called with
