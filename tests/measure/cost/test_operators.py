"""Operator by operator: nothing that users build fusions from is uncounted, and the conventions are kept."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from afftool.measure.cost import elementwise, explain, formulas, operator_work, traffic
from afftool.measure.cost.count import count_module


class Of(nn.Module):
    def __init__(self, function: object, *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*self.parts, *inputs)  # type: ignore[operator]


def dynamic_convolution(gate: nn.Module, x: torch.Tensor) -> torch.Tensor:
    kernels = gate(x.mean((2, 3))).softmax(1).view(-1, 1, 1, 1).expand(-1, 8, 3, 3)
    return F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, padding=1, groups=x.shape[0])


ACTIVATIONS = """ReLU ReLU6 LeakyReLU PReLU ELU SELU CELU GELU SiLU Mish Sigmoid Tanh Hardtanh Hardsigmoid Hardswish
    Softplus LogSigmoid Softsign Hardshrink RReLU GLU Softmax2d Dropout"""
MAPS = {1: (2, 8, 12), 2: (2, 8, 6, 6), 3: (2, 8, 4, 4, 4)}
USED: dict[str, tuple[nn.Module, list[tuple[int, ...]]]] = {
    "attention": (nn.MultiheadAttention(16, 4, batch_first=True), [(2, 5, 16)] * 3),
    "transformer": (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu"), [(2, 5, 16)]),
    "sdpa": (Of(F.scaled_dot_product_attention), [(2, 2, 7, 8)] * 3),
    "lstm": (nn.LSTM(16, 8, batch_first=True), [(2, 5, 16)]),
    "gru": (nn.GRU(16, 8, batch_first=True), [(2, 5, 16)]),
    "linear": (nn.Linear(16, 4), [(2, 5, 16)]),
    "bilinear": (nn.Bilinear(8, 8, 3), [(2, 8), (2, 8)]),
    "layer norm": (nn.LayerNorm(16), [(2, 5, 16)]),
    "rms norm": (nn.RMSNorm(16), [(2, 5, 16)]),
    "dynamic": (Of(dynamic_convolution, nn.Linear(8, 8)), [(2, 8, 6, 6)]),
    "einsum": (Of(lambda x, y: torch.einsum("bchw,bcij->bhwij", x, y)), [MAPS[2]] * 2),
    "baddbmm": (Of(lambda x, y: torch.baddbmm(x, x, y)), [(2, 6, 6)] * 2),
    "lerp": (Of(lambda x, y: torch.lerp(x, y, torch.sigmoid(x))), [MAPS[2]] * 2),
    "stack": (Of(lambda x, y: torch.stack([x, y]).softmax(0).sum(0)), [MAPS[2]] * 2),
    "power": (Of(lambda x, y: (x * x + 1e-3) ** 0.5 + y.exp().sqrt()), [MAPS[2]] * 2),
    "statistics": (Of(lambda x, y: x.var((2, 3), keepdim=True) + y.std(1, keepdim=True)), [MAPS[2]] * 2),
    "extremes": (Of(lambda x, y: x.amax(1) + y.max(1)[0] + y.topk(2, 1)[0].sum(1)), [MAPS[2]] * 2),
    "normalize": (Of(lambda x, y: F.normalize(x) + F.cosine_similarity(x, y).unsqueeze(1)), [MAPS[2]] * 2),
    "grid sample": (
        Of(lambda x, y: F.grid_sample(x, y[:, :2].permute(0, 2, 3, 1), align_corners=False)),
        [MAPS[2]] * 2,
    ),
    "fourier": (Of(lambda x, y: torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(y))), [MAPS[2]] * 2),
    "masked": (Of(lambda x, y: x.masked_fill(y > 0, -1e9).softmax(-1) + torch.where(x > y, x, y)), [MAPS[2]] * 2),
    "gather": (Of(lambda x, y: x.gather(1, y.argsort(1)) + x[:, [0] * 8]), [MAPS[2]] * 2),
    "rearranged": (Of(lambda x, y: x.roll(1, 2) + y.flip(3) + F.pixel_unshuffle(x, 2).sum()), [MAPS[2]] * 2),
    "fold": (Of(lambda x: F.fold(F.unfold(x, 3, padding=1), (6, 6), 3, padding=1)), [MAPS[2]]),
    "bicubic": (nn.Upsample(scale_factor=2, mode="bicubic"), [MAPS[2]]),
    "in place": (Of(lambda x, y: x.clone().add_(y, alpha=2).mul_(3).relu_()), [MAPS[2]] * 2),
    "weight norm": (nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), [MAPS[2]]),
    "inference mode": (Of(torch.inference_mode()(lambda x: F.conv2d(x, x[:, :, :3, :3]) @ x[0, 0, :4])), [MAPS[2]]),
    **{name: (getattr(nn, name)(), [(2, 8, 6, 6)]) for name in ACTIVATIONS.split()},
    **{
        f"{name}{d}d": (getattr(nn, f"{name}{d}d")(*arguments), [shape])
        for d, shape in MAPS.items()
        for name, arguments in (
            ("Conv", (8, 4, 3, 2, 1)),
            ("ConvTranspose", (8, 4, 3, 2)),
            ("BatchNorm", (8,)),
            ("InstanceNorm", (8,)),
            ("AvgPool", (2,)),
            ("MaxPool", (2,)),
            ("AdaptiveAvgPool", (3,)),
            ("AdaptiveAvgPool", (1,)),
            ("AdaptiveMaxPool", (3,)),
            ("ReflectionPad", (1,)),
        )
    },
    **{
        f"{mode} {d}d": (nn.Upsample(scale_factor=2, mode=mode), [MAPS[d]])
        for d, mode in ((1, "nearest"), (2, "nearest-exact"), (1, "linear"), (2, "bilinear"), (3, "trilinear"))
    },
    "group norm": (nn.GroupNorm(2, 8), [MAPS[3]]),
}


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, mode) for name in USED for mode in ("infer", "train") if (name, mode) != ("inference mode", "train")],
)
def test_what_users_build_fusions_from_is_counted(name: str, mode: str) -> None:
    module, shapes = USED[name]
    reading = count_module(module, [torch.randn(shape) for shape in shapes], mode=mode)  # type: ignore[arg-type]
    assert reading.uncounted_ops == {}
    assert reading.counted_on == "meta"
    assert (reading.moved_bytes > 0) == ((name, mode) != ("Dropout", "infer"))
    if mode == "train":
        assert reading.backward_moved_bytes


def counted(function: object, *shapes: tuple[int, ...]) -> tuple[int, int, int]:
    reading = count_module(Of(function), [torch.randn(shape) for shape in shapes])
    assert reading.uncounted_ops == {}
    return reading.macs, reading.flops, reading.moved_bytes


@pytest.mark.parametrize(
    ("function", "shapes", "macs"),
    [
        (lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=2), [(2, 8, 9, 7), (6, 4, 3, 3)], 2 * 6 * 20 * 36),
        (lambda x, w: F.conv_transpose1d(x, w, stride=3, groups=2), [(2, 8, 5), (8, 3, 4)], 2 * 8 * 5 * 3 * 4),
        (lambda x, w: F.conv3d(x, w), [(8, 4, 4, 4), (2, 8, 2, 2, 2)], 2 * 27 * 64),
        (F.linear, [(2, 5, 7), (3, 7)], 2 * 5 * 7 * 3),
        (F.linear, [(2, 5, 7), (3, 7), (3,)], 2 * 5 * 7 * 3),
        (torch.matmul, [(2, 3, 4, 5), (2, 3, 5, 6)], 6 * 4 * 5 * 6),
        (torch.bmm, [(3, 4, 5), (3, 5, 2)], 3 * 4 * 5 * 2),
        (torch.mv, [(4, 5), (5,)], 20),
        (torch.dot, [(9,), (9,)], 9),
        (lambda a, b, c: torch.addmm(a, b, c), [(4, 2), (4, 3), (3, 2)], 24),
        (lambda a, b, c: torch.addbmm(a, b, c), [(4, 2), (5, 4, 3), (5, 3, 2)], 5 * 24),
        (
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
            [(2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7)],
            6 * 24 * 12,
        ),
    ],
)
def test_products_have_the_multiply_adds_of_their_definition(function: object, shapes: list, macs: int) -> None:
    assert counted(function, *shapes)[0] == macs


@pytest.mark.parametrize(
    ("function", "each"),
    [
        (torch.relu, 1),
        (torch.sigmoid, 1),
        (lambda x: x * torch.sigmoid(x), 2),
        (F.silu, 2),
        (lambda x: x + 1, 1),
        (lambda x: torch.add(x, x, alpha=2), 2),
        (lambda x: x**2, 1),
        (lambda x: x.softmax(1), 5),
        (lambda x: x.mean((2, 3)), 1),
        (lambda x: x.sum(), 1),
        (lambda x: x.var((2, 3)), 4),
        (lambda x: F.avg_pool2d(x, 2), 1),
        (lambda x: F.max_pool2d(x, 3), 1),
        (lambda x: F.adaptive_avg_pool2d(x, 2), 1),
        (lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), 0),
        (lambda x: F.interpolate(x, size=(6, 6), mode="bilinear"), 7),
        (lambda x: F.batch_norm(x, torch.zeros(8).to(x), torch.ones(8).to(x)), 2),
        (lambda x: F.layer_norm(x, x.shape[1:]), 6),
        (lambda x: F.group_norm(x, 2), 6),
        (lambda x: torch.cat([x, x], 1), 0),
        (lambda x: x.transpose(1, 2).reshape(-1).view(2, -1), 0),
        (lambda x: x.ge(0).logical_not().any(), 1),
        (lambda x: (x > 0).int() + 1, 1),
    ],
)
def test_work_per_element_follows_the_conventions(function: object, each: int) -> None:
    assert counted(function, (2, 8, 6, 6))[:2] == (0, each * 2 * 8 * 36)


ONE = 4 * 2 * 8 * 36
"""Bytes of one map of (2, 8, 6, 6)."""


@pytest.mark.parametrize(
    ("function", "moved"),
    [
        (torch.relu, 2 * ONE),
        (lambda x: x + x, 2 * ONE),
        (lambda x: x.view(2, -1).t().unsqueeze(0).expand(3, -1, -1), 0),
        (lambda x: x.chunk(2, 1), 0),
        (lambda x: torch.cat(x.chunk(2, 1), 1), 2 * ONE),
        (lambda x: x.transpose(2, 3) * x, 2 * ONE),
        (lambda x: x + x[:, :, :1, :1], 2 * ONE),
        (lambda x: x + x[:1, :1, :1, :1].expand_as(x), 2 * ONE),
        (lambda x: x[:, :4] * x[:, 4:], ONE + ONE // 2),
        (lambda x: torch.empty_like(x), 0),
        (lambda x: torch.zeros_like(x), ONE),
        (lambda x: torch.empty_like(x).copy_(x), 2 * ONE),
        (lambda x: x.sum(), ONE + 4),
        (lambda x: x[:, [0, 1]], 2 * ONE // 4 + 16),
        (lambda x: F.embedding(torch.zeros(3, dtype=torch.long, device=x.device), x.view(-1, 6)), 24 + 24 + 2 * 72),
    ],
)
def test_bytes_are_the_least_each_operator_must_move(function: object, moved: int) -> None:
    assert counted(function, (2, 8, 6, 6))[2] == moved


def test_an_in_place_operator_moves_no_more_than_its_map_in_and_out() -> None:
    _, _, aside = counted(lambda x: torch.relu(x * 2), (2, 8, 6, 6))
    _, _, in_place = counted(lambda x: (x * 2).relu_(), (2, 8, 6, 6))
    assert in_place == aside == 4 * ONE
    _, _, out = counted(lambda x: torch.mul(x, 2, out=torch.empty_like(x)), (2, 8, 6, 6))
    assert out == 2 * ONE


def test_backward_reads_only_what_the_gradients_asked_for_need() -> None:
    x = torch.randn(2, 8, 6, 6)
    frozen = nn.Conv2d(8, 8, 1, bias=False).requires_grad_(False)
    row = next(
        row for row in count_module(frozen, [x], mode="train").rows if row.operator == "aten.convolution_backward"
    )
    assert row.moved_bytes == 2 * ONE + 4 * 64  # the gradient in and out, and the weight; the input is not read
    assert row.macs == 64 * 72


@pytest.mark.parametrize("layer", [nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2)])
def test_a_grouped_convolution_has_its_forward_s_products_twice_in_backward(layer: nn.Module) -> None:
    """One for each gradient: a weight meets as many pairs of values in its own gradient as in forward.

    torch's own counter forgets the groups in the weight's gradient and says more.
    """
    reading = count_module(layer, [torch.randn(2, 8, 6, 6)], mode="train")
    assert reading.backward_macs == 2 * reading.macs
    assert sum(row.torch_flops for row in reading.rows if row.direction == "backward") > 4 * reading.macs


def is_operator(name: str) -> bool:
    return hasattr(torch.ops.aten, name)


KNOWN_BY_NAME = {
    "special": formulas._SPECIAL,
    "per output": elementwise.PER_OUTPUT,
    "per input": elementwise.PER_INPUT,
    "metadata": elementwise.METADATA,
    "moves": elementwise.MOVES,
}
"""Looked up by an operator's name, and by that of an operator in place without its underscore."""


@pytest.mark.parametrize("names", KNOWN_BY_NAME)
def test_every_key_of_the_operator_table_is_an_operator_of_torch(names: str) -> None:
    assert [name for name in KNOWN_BY_NAME[names] if not is_operator(name) and not is_operator(name + "_")] == []


def test_no_operator_has_two_formulas() -> None:
    names = [name for group in KNOWN_BY_NAME.values() for name in group]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


@pytest.mark.parametrize(
    "names",
    [
        traffic._WRITTEN_ONLY,
        traffic._POOL_BACKWARD,
        traffic._LOOKED_UP,
        traffic._SCATTERED,
        operator_work._SCALABLE,
        {name for family in explain._FVCORE_NAMES.values() for name in family},
    ],
)
def test_what_is_looked_up_as_it_is_written_is_an_operator_of_torch(names: set[str]) -> None:
    assert [name for name in names if not is_operator(name)] == []


def test_the_convolutions_of_vendors_count_as_the_one_they_stand_for() -> None:
    x, weight = torch.randn(2, 8, 6, 6), torch.randn(4, 8, 3, 3)
    where = {"padding": [1, 1], "stride": [1, 1], "dilation": [1, 1], "groups": 1}
    reading = count_module(Of(lambda x, w: torch.ops.aten.mkldnn_convolution(x, w, None, **where)), [x, weight])
    assert reading.uncounted_ops == {}
    assert reading.macs == 2 * 4 * 36 * 8 * 9
