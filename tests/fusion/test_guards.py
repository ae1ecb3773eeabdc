"""Bad input is a typed error with a hint, raised at the earliest point where it can be known."""

import pytest
import torch

from afftool.errors import BatchStatisticsError, LoadError, ShapeError, SpecError, UnknownKey, UnknownName
from afftool.fusion import AFF, IAFF, MSCAM, build_fusion
from afftool.hosts import build_host
from afftool.spec import CaseSpec, FusionSpec, HostSpec


@pytest.mark.parametrize("name", ["add", "concat", "se", "aff", "iaff", "eres2net-aff"])
@pytest.mark.parametrize("shape", [(2, 8, 1, 1), (2, 8, 5, 1), (1, 8, 5, 5), (2, 1, 5, 5), (2, 8, 5), (8, 5, 5)])
def test_maps_that_differ_in_shape_are_refused_never_broadcast(name, shape):
    module = build_fusion(name, channels=8).eval()
    with pytest.raises(ShapeError, match="differ in shape") as caught:
        module(torch.randn(2, 8, 5, 5), torch.randn(shape))
    assert caught.value.hint


def test_maps_of_other_channels_dimensions_or_number_are_refused():
    module = AFF(8)
    x = torch.randn(2, 4, 5, 5)
    with pytest.raises(ShapeError, match=r"\(N, 8, H, W\)"):
        module(x, x)
    flat = torch.randn(2, 8, 5)
    with pytest.raises(ShapeError, match=r"\(N, 8, H, W\)"):
        module(flat, flat)
    with pytest.raises(ShapeError, match="takes 2 feature maps and got 1"):
        module(torch.randn(2, 8, 5, 5))


@pytest.mark.parametrize("name", ["aff", "iaff", "se", "recursive-aff"])
def test_batch_norm_over_a_single_value_is_refused_in_training_only(name):
    module = build_fusion(name, channels=8)
    one = torch.randn(1, 8, 5, 5)
    with pytest.raises(BatchStatisticsError, match="one value a channel") as caught:
        module(one, one)
    assert "norm=layer" in caught.value.hint
    assert module.eval()(one, one).shape == one.shape


def test_a_local_branch_trains_on_one_image_but_not_on_one_position():
    module = build_fusion("local-local", channels=8)
    module(torch.randn(1, 8, 5, 5), torch.randn(1, 8, 5, 5))
    with pytest.raises(BatchStatisticsError, match="local branch"):
        module(torch.randn(1, 8, 1, 1), torch.randn(1, 8, 1, 1))


@pytest.mark.parametrize("make", [AFF, IAFF, MSCAM, lambda c, reduction: build_fusion("sk", channels=c, reduction=16)])
def test_fewer_channels_than_the_reduction_are_refused_when_the_module_is_built(make):
    with pytest.raises(SpecError, match="8 channels cannot be reduced by 16") as caught:
        make(8, reduction=16)
    assert "reduction=8" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("iafff", UnknownName, "did you mean 'iaff'"),
        ("aff:reducton=2", UnknownKey, "did you mean 'reduction'"),
        ("add:reduction=2", SpecError, "add has no attention"),
        ("concat:scales=local", SpecError, "concat has no attention"),
        ("aff:reduction=two", SpecError, "not a whole number"),
        ("aff:reduction=0", SpecError, "is no whole number from 1"),
        ("aff:reduction", SpecError, "not key=value"),
        ("aff:reduction=2:reduction=4", SpecError, "given twice"),
        ("aff:norm=bach", SpecError, "choose from batch, layer, none"),
        ("aff:scales=local+1", SpecError, "whole number from 2"),
        ("aff:scales=focal", SpecError, "not allowed"),
        ("aff:join=recursive:scales=local", SpecError, "two scales"),
        ("se:iterations=2", SpecError, "needs strategy=selection"),
        ("highway:integration=concat", SpecError, "context=both"),
        ("aff:share_global=true", SpecError, "second pass"),
        ("aff:gate=tanh:inputs=3", SpecError, "two inputs"),
        ("aff:gain=0", SpecError, "not a usable factor"),
        ("aff:gain=nan", SpecError, "not a usable factor"),
        ("aff:ndim=4", SpecError, "1, 2 or 3"),
        ("aff:inputs=1", SpecError, "is no whole number from 2"),
        ("", SpecError, "empty fusion name"),
        (":reduction=2", SpecError, "empty fusion name"),
        ("aff:", SpecError, "not key=value"),
    ],
)
def test_a_bad_text_is_refused_with_a_hint_before_anything_is_built(text, error, says):
    with pytest.raises(error) as caught:
        FusionSpec.parse(text)
    assert says in str(caught.value)


def test_a_case_that_cannot_train_is_refused_when_its_spec_is_made():
    aff = FusionSpec.parse("aff")
    with pytest.raises(BatchStatisticsError):
        CaseSpec(fusion=aff, batch=1, mode="train")
    with pytest.raises(SpecError, match="cannot be reduced"):
        CaseSpec(fusion=aff, channels=2)
    with pytest.raises(SpecError, match="2-dimensional maps"):
        CaseSpec(fusion=aff, size=(8,))
    with pytest.raises(SpecError, match="decides its own channels"):
        CaseSpec(fusion=aff, host=HostSpec.parse("resnet"), channels=64, size=(32, 32))
    in_a_host = {"channels": None, "size": (32, 32)}
    with pytest.raises(SpecError, match="16 channels cannot be reduced by 32"):
        CaseSpec(fusion=FusionSpec.parse("aff:reduction=32"), host=HostSpec.parse("resnet"), **in_a_host)
    CaseSpec(fusion=FusionSpec.parse("aff:reduction=32"), host=HostSpec.parse("resnet:stages=3"), **in_a_host)
    CaseSpec(fusion=FusionSpec.parse("aff:reduction=32"), host=HostSpec.parse("resnet:width=2"), **in_a_host)
    with pytest.raises(BatchStatisticsError):
        CaseSpec(fusion=aff, host=HostSpec.parse("resnet50"), channels=None, size=(64, 64), batch=1, mode="train")
    assert CaseSpec(fusion=aff, batch=1).identity != CaseSpec(fusion=aff, batch=2).identity


@pytest.mark.parametrize("text", ["aff:reduction=4", "aff", "aff:gain=1:scales=local+global"])
def test_texts_that_mean_the_same_have_one_identity(text):
    assert CaseSpec(fusion=FusionSpec.parse(text)).identity == CaseSpec(fusion=FusionSpec.parse("aff")).identity


OWN = """
import torch
from torch import nn

class Gate(nn.Module):
    def __init__(self, channels, width=4):
        super().__init__()
        self.width = width
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x, y):
        return x + torch.sigmoid(self.conv(y)) * y

class Takes(nn.Module):
    def __init__(self, channels, reduction, ndim, *, name="a", deep=False):
        super().__init__()
        self.got = (channels, reduction, ndim, name, deep)

    def forward(self, x, y):
        return x

class Broken(nn.Module):
    def __init__(self, channels):
        raise ValueError("no such width")

class Needs(nn.Module):
    def __init__(self, level):
        super().__init__()

def make(channels, ndim=2):
    return Takes(channels, 1, ndim)

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_gates.py").write_text(OWN)
    (tmp_path / "own_syntax.py").write_text("def broken(:")
    (tmp_path / "own_import.py").write_text("import surely_not_installed")
    monkeypatch.chdir(tmp_path)
    yield
    import sys

    for name in ("own_gates", "own_syntax", "own_import"):
        sys.modules.pop(name, None)
    sys.path[:] = [p for p in sys.path if p != str(tmp_path)]


@pytest.mark.usefixtures("own")
def test_a_module_of_the_users_own_is_found_from_the_current_directory_and_given_what_it_takes():
    gate = build_fusion("own_gates:Gate:width=8", channels=6)
    x, y = torch.randn(2, 2, 6, 4, 4).unbind(0)
    assert gate(x, y).shape == x.shape
    assert gate.width == 8
    assert build_fusion("own_gates:Takes:deep=true:name=b", channels=6).got == (6, 4, 2, "b", True)
    assert build_fusion("own_gates:Takes:reduction=8:ndim=1", channels=6).got == (6, 8, 1, "a", False)
    assert build_fusion("own_gates:make", channels=5, ndim=3).got == (5, 1, 3, "a", False)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("own_gates:Gat", LoadError, "did you mean own_gates:Gate"),
        ("own_gate:Gate", LoadError, "no module named 'own_gate'"),
        ("own_gates:Gate:wdth=8", UnknownKey, "takes no key 'wdth'"),
        ("own_gates:Broken", LoadError, "no such width"),
        ("own_gates:Needs", LoadError, "channels, reduction and ndim are given where the signature names them"),
        ("own_gates:Needs", LoadError, "`own_gates:Needs:level={channels}`"),
        ("own_gates:number", LoadError, "not a class"),
        ("own_syntax:Gate", LoadError, "SyntaxError"),
        ("own_import:Gate", LoadError, "install 'surely_not_installed'"),
    ],
)
def test_a_module_of_the_users_own_that_cannot_be_used_says_why(text, error, says):
    with pytest.raises(error) as caught:
        build_fusion(text, channels=8)
    assert says in str(caught.value)


def test_unknown_settings_are_refused_in_python_too():
    with pytest.raises(UnknownKey, match="takes no key 'reducton'"):
        build_fusion("aff", channels=8, reducton=2)
    with pytest.raises(SpecError, match="not a usable width"):
        build_fusion("aff", channels=0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4", 4), ("0.5", 0.5), ("1e-3", 0.001), ("True", True), ("none", None), ("(1,2)", (1, 2)), ("same", "same")],
)
def test_a_key_of_the_users_own_is_read_alike_in_a_fusion_and_in_a_host(text, value, monkeypatch):
    seen = []

    class Keeps(torch.nn.Module):
        def __init__(self, *fusion, key):
            super().__init__()
            seen.append(key)

    monkeypatch.setattr("afftool.own.load", lambda path: Keeps)
    build_fusion(f"mine:Keeps:key={text}", channels=8)
    build_host(HostSpec.parse(f"mine:Keeps:key={text}"), FusionSpec.parse("add"))
    assert seen == [value, value]
    assert type(seen[0]) is type(seen[1]) is type(value)
