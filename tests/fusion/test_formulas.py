"""Every preset computes the paper's formula in 1d, 2d and 3d, with gradients to all inputs and live parameters."""

import pytest
import torch
from by_hand import FORMULAS, FORMULAS_OF_N, POOLED, SIZES

from afftool.catalog import FUSIONS
from afftool.fusion import MSCAM, build_fusion

DEAD = {"open-iaff": "global_att2"}
"""Parameters that by design no gradient reaches."""


def settings(name: str) -> dict[str, int]:
    return {} if name in ("add", "concat") else {"reduction": 2}


def build(name: str, ndim: int, inputs: int = 2, channels: int = 4) -> torch.nn.Module:
    module = build_fusion(name, channels=channels, ndim=ndim, inputs=inputs, **settings(name)).double()
    generator = torch.Generator().manual_seed(1)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return module


def maps(ndim: int, inputs: int = 2, channels: int = 4) -> list[torch.Tensor]:
    return [torch.randn(3, channels, *SIZES[ndim], dtype=torch.float64, requires_grad=True) for _ in range(inputs)]


def test_every_preset_has_a_formula_written_by_hand():
    assert FORMULAS.keys() == {*FUSIONS, POOLED}
    assert FORMULAS_OF_N.keys() == FORMULAS.keys() - {"eres2net-aff"}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("name", FORMULAS)
def test_fusion_computes_its_formula_and_gradients(name, ndim, training):
    module = build(name, ndim).train(training)
    x, y = maps(ndim)
    live = {k: p for k, p in module.named_parameters() if k.split(".")[0] != DEAD.get(name)}
    state = {k: v.clone() for k, v in module.state_dict().items()} | live
    expected = FORMULAS[name](state, x.flatten(2), y.flatten(2), training).view_as(x)
    actual = module(x, y)
    torch.testing.assert_close(actual, expected)
    direction = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [x, y, *live.values()], direction)
    found = torch.autograd.grad(actual, [x, y, *live.values()], direction)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_agree_with_finite_differences(name):
    module = build(name, 2).eval()
    x, y = maps(2)
    assert torch.autograd.gradcheck(lambda x, y: module(x, y), (x, y), fast_mode=True)


def names_and_inputs() -> list[tuple[str, int]]:
    """A tanh gate weighs two inputs by definition; every other preset takes any number."""
    return [(name, inputs) for name in FORMULAS for inputs in (2, 3) if (name, inputs) != ("eres2net-aff", 3)]


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("name", "inputs"), names_and_inputs())
def test_fusion_keeps_shape_and_dtype_and_reaches_every_input_and_live_parameter(name, inputs, ndim):
    module = build(name, ndim, inputs)
    xs = maps(ndim, inputs)
    fused = module(*xs)
    assert fused.shape == xs[0].shape
    assert fused.dtype == xs[0].dtype
    (fused * torch.randn_like(fused)).sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in xs)
    unreached = {k.split(".")[0] for k, p in module.named_parameters() if p.grad is None}
    assert unreached == ({DEAD[name]} if name in DEAD else set())


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("inputs", [2, 3, 4])
@pytest.mark.parametrize("name", FORMULAS_OF_N)
def test_any_number_of_maps_is_fused_by_the_generalised_formula_with_its_gradients(name, inputs, training):
    ndim = {2: 2, 3: 1, 4: 3}[inputs]
    module = build(name, ndim, inputs).train(training)
    xs = maps(ndim, inputs)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    expected = FORMULAS_OF_N[name](state, [x.flatten(2) for x in xs], training).view_as(xs[0])
    actual = module(*xs)
    torch.testing.assert_close(actual, expected)
    direction = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, xs, direction)
    for a, b in zip(torch.autograd.grad(actual, xs, direction), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_two_maps_in_the_softmax_form_are_the_sigmoid_form():
    logits = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    softmax = torch.softmax(torch.stack([logits, torch.zeros_like(logits)]), dim=0)
    torch.testing.assert_close(softmax[0], torch.sigmoid(logits))


@pytest.mark.parametrize("name", ["aff", "iaff", "sk", "highway", "recursive-aff"])
def test_soft_selection_of_a_map_with_itself_is_that_map(name):
    module = build(name, 2).eval()
    x = maps(2)[0]
    torch.testing.assert_close(module(x, x), x)


def test_pooled_scales_lie_between_local_and_global():
    one_position = build_fusion("aff:scales=4:reduction=2", channels=8).eval()
    local = build_fusion("aff:scales=local:reduction=2", channels=8).eval()
    weights = dict(one_position.named_parameters())
    for key, tensor in local.named_parameters():
        shift = key.replace("local_att", "pool4_att")
        index = int(shift.split(".")[1])
        tensor.data.copy_(weights[shift.replace(f".{index}.", f".{index + 1}.")])
    x, y = torch.randn(2, 2, 8, 4, 4).unbind(0)
    torch.testing.assert_close(one_position(x, y), local(x, y))
    odd = build_fusion("aff:scales=global+3+local+3:reduction=2", channels=8)
    assert odd(torch.randn(2, 8, 7, 5), torch.randn(2, 8, 7, 5)).shape == (2, 8, 7, 5)


def test_mscam_weighs_a_map_by_its_own_attention():
    module = MSCAM(channels=6, reduction=3).double().eval()
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    state = module.state_dict()
    from by_hand import ms

    weight = ms(state, x.flatten(2), False).view_as(x)
    torch.testing.assert_close(module.attention(x), weight)
    torch.testing.assert_close(module(x), x * weight)


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_other_norms_train_on_a_single_image(norm):
    module = build_fusion("iaff", channels=8, reduction=2, norm=norm)
    fused = module(torch.randn(1, 8, 3, 3), torch.randn(1, 8, 3, 3))
    fused.sum().backward()
    assert all(p.grad is not None for p in module.parameters())
