"""A graft that adds is the network it was put into, to the last bit, however its additions are written."""

from __future__ import annotations

import copy
import io
import random

import pytest
import torch
from grafted.same_network import differences
from planted_networks import (
    ADDITIONS,
    AuxiliaryHead,
    Branches,
    Concatenates,
    Dice,
    DropoutInPlaceOfTheSkip,
    IntoAPiece,
    Net,
    OwnBackward,
    Remembers,
    Repeated,
    TwoInputs,
    ViewOfWritten,
)
from torch import nn

from afftool.errors import LoadError, ShapeError
from afftool.fusion import fusion_factory
from afftool.graft.network import Survey, graft
from afftool.spec import FusionSpec
from afftool.spec.graft import Selection

ADD, AFF = (fusion_factory(FusionSpec.parse(text)) for text in ("add", "aff:reduction=2"))
ADDITIONS_ALONE = Selection(at=("add",))


def images(batch: int = 2, size: int = 8) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("kind", ADDITIONS, ids=lambda kind: kind.__name__)
def test_a_graft_that_adds_and_one_of_nothing_are_the_network(kind: type[Net]) -> None:
    net, survey = kind(), Survey((images(),))
    for fusion in (ADD, None) if ADDITIONS[kind] else (None,):
        same, grafted = copy.deepcopy(net), copy.deepcopy(net)
        graft(grafted, [images()], fusion, ADDITIONS_ALONE, survey=survey)
        assert differences(same, grafted, [images()]) == []
    assert sum(site.kind == "add" for site in survey.sites) == ADDITIONS[kind]
    assert all(survey.only(site) is None for site in survey.sites)


def test_two_inputs_are_taken_by_place_and_by_name() -> None:
    net, depth = TwoInputs(), torch.randn(2, 1, 8, 8)
    same = copy.deepcopy(net)
    graft(net, [images(), depth], ADD)
    assert differences(same, net, [images(), depth]) == []
    assert torch.equal(net(depth=depth, image=images()), same(images(), depth))
    with pytest.raises(ShapeError, match="grafted for 2 tensors"):
        net(images(), depth, scale=3.0)


def test_a_dropout_that_gives_its_map_back_is_never_told_apart_from_it() -> None:
    net = DropoutInPlaceOfTheSkip()
    same = copy.deepcopy(net)
    refused = None
    try:
        graft(net, [images()], ADD)
    except LoadError as error:  # torch before 2.14 does not tell in its graph that both are one
        refused = error.message
    assert differences(same, net, [images()]) == [] if refused is None else "reads another view later" in refused


@pytest.mark.parametrize("kind", [ViewOfWritten, IntoAPiece])
def test_a_site_that_writes_into_what_is_read_through_another_view_is_refused_by_its_line(kind: type[Net]) -> None:
    with pytest.raises(LoadError, match=r"site 1 .*planted_networks.py:\d+.* reads another view later"):
        graft(kind(), [images()], ADD)


@pytest.mark.parametrize("kind", [ViewOfWritten, IntoAPiece, DropoutInPlaceOfTheSkip])
def test_where_such_a_site_is_left_out_the_network_runs_as_it_is(kind: type[Net]) -> None:
    net = kind()
    same = copy.deepcopy(net)
    assert differences(same, graft(net, [images()], None), [images()]) == []


def test_what_depends_on_values_is_refused_with_its_line_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LoadError, match=r"planted_networks.py:\d+ `return x \+ y if y.sum\(\) > 0 else x`") as refused:
        graft(Branches(), [images()], ADD)
    assert "--inside" in (refused.value.hint or "")
    assert capfd.readouterr() == ("", "")


def test_every_other_name_stays_and_a_checkpoint_of_the_network_loads() -> None:
    net, trained = Repeated(), Repeated()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    graft(net, [images()], AFF)
    after = net.state_dict()
    assert [name for name in after if not name.startswith("fusions.")] == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    missing, unexpected = net.load_state_dict(trained.state_dict(), strict=False)
    assert unexpected == []
    assert missing
    assert all(name.startswith("fusions.") for name in missing)
    assert torch.equal(net.stem.weight, trained.stem.weight)


@pytest.mark.parametrize("kind", [Repeated, OwnBackward, Concatenates, AuxiliaryHead])
def test_a_grafted_network_saves_and_loads_and_copies(kind: type[Net]) -> None:
    net, twin = (graft(kind(), [images()], AFF) for _ in range(2))
    stored = io.BytesIO()
    torch.save(net.state_dict(), stored)
    stored.seek(0)
    twin.load_state_dict(torch.load(stored, weights_only=True))
    assert differences(net, twin, [images()]) == []
    copied = copy.deepcopy(net)
    assert differences(net, copied, [images()]) == []
    with torch.no_grad():
        copied.stem.weight.zero_()
    assert net.stem.weight.any()
    assert "stem" in differences(net, copied, [images()])[0]


def test_a_grafted_network_compiles_whole() -> None:
    net = graft(Net(), [images()], AFF, modes=("eval",)).eval()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(images()), net(images()), atol=1e-6)


def test_a_grafted_network_can_be_exported_and_grafted_again() -> None:
    net = graft(Repeated(), [images()], AFF).eval()
    program = torch.export.export(net, (images(),), strict=False)
    assert torch.equal(program.module()(images()), net(images()))
    again = graft(copy.deepcopy(net), [images()], ADD, Selection(at=("1",)))
    assert {name.partition(".")[0] for name in again.state_dict()} >= {"fusions"}


def test_a_grafted_network_goes_to_another_precision_and_to_the_meta_device() -> None:
    net = graft(OwnBackward(), [images()], AFF)
    assert net.to(torch.bfloat16)(images().to(torch.bfloat16)).dtype == torch.bfloat16
    assert net.to("meta")(images().to("meta", torch.bfloat16)).shape == (2, 5)
    with torch.device("meta"):
        made = graft(Repeated(), [images().to("meta")], ADD)
        assert made(images().to("meta")).shape == (2, 5)


def test_modes_switch_both_ways_and_training_is_traced_when_it_is_first_asked_for() -> None:
    net = AuxiliaryHead()
    same = copy.deepcopy(net)
    graft(net, [images()], ADD, modes=("eval",))
    assert isinstance(net.eval()(images()), torch.Tensor)
    assert len(net.train()(images())) == 2
    assert differences(same, net, [images()]) == []
    assert not net.eval().training
    assert not any(part.training for part in net.modules())


def test_what_is_grafted_stays_an_object_of_its_class() -> None:
    net = Remembers()
    net.own = "mine"  # type: ignore[assignment]
    grafted = graft(net, [images()], ADD)
    assert grafted is net
    assert isinstance(net, Remembers)
    assert type(net).__name__ == "Remembers"
    assert net.own == "mine"
    assert not hasattr(net, "calls")


def test_two_grafts_of_one_network_are_drawn_alike_from_one_seed() -> None:
    def drawn() -> nn.Module:
        torch.manual_seed(3)
        return graft(Concatenates(), [images()], AFF)

    assert differences(drawn(), drawn(), [images()]) == []


def test_a_forward_that_draws_from_pythons_numbers_is_refused_and_draws_none() -> None:
    state = random.getstate()
    with pytest.raises(LoadError, match="Dice draws from Python's random numbers"):
        graft(Dice(), [images()], ADD)
    assert random.getstate() == state
    graft(Dice(), [images()], ADD, modes=("eval",))
