"""Checkpoints of the released PyTorch port load, and give either the released outputs or the paper's."""

import copy

import pytest
import torch
from by_hand import FORMULAS, ms

from afftool.errors import LoadError
from afftool.fusion import AFF, IAFF, MSCAM, build_fusion, load_open_aff


def released(parts: tuple[str, ...], channels: int = 12, inner: int = 3, ndim: int = 2) -> dict[str, torch.Tensor]:
    """A state dict as the port writes it, made from its documented names alone."""
    generator = torch.Generator().manual_seed(3)
    state: dict[str, torch.Tensor] = {}

    def put(name: str, *shape: int) -> None:
        state[name] = 0.5 + torch.rand(shape, generator=generator)

    for part in parts:
        first = 1 if part.startswith("global") else 0
        for offset, out, width in ((first, inner, channels), (first + 3, channels, inner)):
            put(f"{part}.{offset}.weight", out, width, *[1] * ndim)
            put(f"{part}.{offset}.bias", out)
            for name in ("weight", "bias", "running_mean", "running_var"):
                put(f"{part}.{offset + 1}.{name}", out)
            state[f"{part}.{offset + 1}.num_batches_tracked"] = torch.tensor(7)
    return state


AFF_PARTS = ("local_att", "global_att")
IAFF_PARTS = (*AFF_PARTS, "local_att2", "global_att2")


def maps(ndim: int, channels: int = 12) -> list[torch.Tensor]:
    return list(torch.randn(2, 2, channels, *(5, 4, 3)[:ndim]).unbind(0))


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("name", "parts"), [("aff", AFF_PARTS), ("iaff", IAFF_PARTS)])
def test_a_released_checkpoint_loads_strictly_and_then_computes_the_papers_formula(name, parts, ndim):
    state = released(parts, ndim=ndim)
    module = build_fusion(name, channels=12, reduction=4, ndim=ndim).eval()
    module.load_state_dict(state, strict=True)
    x, y = maps(ndim)
    torch.testing.assert_close(module(x, y), FORMULAS[name](state, x.flatten(2), y.flatten(2), False).view_as(x))


def test_ms_cam_and_the_classes_take_released_names_too():
    MSCAM(12, reduction=4).load_state_dict(released(AFF_PARTS), strict=True)
    AFF(12, reduction=4).load_state_dict(released(AFF_PARTS), strict=True)
    IAFF(12, reduction=4).load_state_dict(released(IAFF_PARTS), strict=True)


@pytest.mark.parametrize("inner", [1, 3, 6, 12])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_loading_released_aff_finds_its_shape_and_doubles_as_it_does(ndim, inner):
    state = released(AFF_PARTS, inner=inner, ndim=ndim)
    module = load_open_aff(state)
    assert not module.training
    x, y = maps(ndim)
    expected = FORMULAS["open-aff"](state, x.flatten(2), y.flatten(2), False).view_as(x)
    torch.testing.assert_close(module(x, y), expected)


@pytest.mark.parametrize("ndim", [1, 2])
def test_loading_released_iaff_shares_the_first_global_branch_and_warns_of_the_dead_one(ndim):
    state = released(IAFF_PARTS, ndim=ndim)
    with pytest.warns(UserWarning, match="never calls global_att2"):
        module = load_open_aff(state)
    x, y = maps(ndim)
    expected = FORMULAS["open-iaff"](state, x.flatten(2), y.flatten(2), False).view_as(x)
    torch.testing.assert_close(module(x, y), expected)
    changed = copy.deepcopy(state)
    changed["global_att2.1.weight"] += 1
    with pytest.warns(UserWarning, match="never trained"):
        torch.testing.assert_close(load_open_aff(changed)(x, y), expected)


def test_loading_ms_cam_must_be_asked_for_since_its_names_are_those_of_aff():
    state = released(AFF_PARTS)
    module = load_open_aff(state, kind="ms-cam")
    x = maps(2)[0]
    torch.testing.assert_close(module(x), x * ms(state, x.flatten(2), False).view_as(x))


def test_loading_recognises_eres2nets_fusion():
    state = released(("local_att",), channels=12)
    state["local_att.0.weight"] = torch.rand(3, 24, 1, 1)
    module = load_open_aff(state)
    x, y = maps(2)
    expected = FORMULAS["eres2net-aff"](state, x.flatten(2), y.flatten(2), False).view_as(x)
    torch.testing.assert_close(module(x, y), expected)


def test_a_prefix_that_all_names_share_and_the_dtype_are_kept_in_mind():
    state = {f"module.fuse.{k}": v.double() if v.is_floating_point() else v for k, v in released(AFF_PARTS).items()}
    module = load_open_aff(state)
    assert {p.dtype for p in module.parameters()} == {torch.float64}


def test_counters_that_old_checkpoints_lack_are_filled_in():
    state = {k: v for k, v in released(AFF_PARTS).items() if not k.endswith("num_batches_tracked")}
    load_open_aff(state)


def broken(change) -> dict:
    state = released(AFF_PARTS)
    change(state)
    return state


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, "no released module has exactly the parts"),
        ({"conv1.weight": torch.ones(1)}, "no released module has exactly the parts"),
        ({"state_dict": {}}, "not a tensor"),
        (broken(lambda s: s.pop("local_att.0.weight")), "missing"),
        (broken(lambda s: s.pop("global_att.1.bias")), "global_att.1.bias"),
        (broken(lambda s: s.update({"global_att.1.weight": torch.ones(3, 11, 1, 1)})), "size mismatch"),
        (broken(lambda s: s.update({"local_att.0.weight": torch.ones(3, 12)})), "no convolution"),
        (broken(lambda s: s.update({"local_att.0.weight": torch.ones(24, 12, 1, 1)})), "no reduction gives"),
        (broken(lambda s: s.update({"local_att.0.weight": torch.ones(5, 12, 1, 1)})), "no reduction gives"),
        (
            {**{f"a.{k}": v for k, v in released(AFF_PARTS).items()}, **released(AFF_PARTS)},
            "2 fusions are in this state dict",
        ),
    ],
)
def test_anything_else_is_refused_with_a_reason(state, says):
    with pytest.raises(LoadError) as caught:
        load_open_aff(state)
    assert says in str(caught.value)
