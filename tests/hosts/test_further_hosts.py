"""The hosts of the ablations: Inception-ResNet (same layer), CIFAR ResNeXt (short skip), FPN (long skip)."""

import pytest
import torch
from torch import nn

from afftool import catalog
from afftool.errors import ShapeError, SpecError
from afftool.fusion import fusion_factory
from afftool.hosts import build_host, describe_host
from afftool.spec import FusionSpec, HostSpec

SMALL = {
    "resnet": "resnet:b=1:classes=7",
    "inception": "inception:b=1:classes=7",
    "resnext": "resnext:b=1:cardinality=4:classes=7",
    "fpn": "fpn:b=1:classes=7",
}
EVERY = {name: SMALL.get(name, name) for name in catalog.HOSTS if name not in ("module", "resnet50", "resnext50")}
"""Every host of the catalog, small where its defaults are not; those for ImageNet are too large for these tests."""


def _host(text: str, fusion: str = "aff") -> nn.Module:
    torch.manual_seed(0)
    return build_host(HostSpec.parse(text), FusionSpec.parse(fusion))


def _params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _places(text: str) -> list[tuple[str, int]]:
    stages = describe_host(HostSpec.parse(text))
    return [(stage.name, fused.channels) for stage in stages for fused in stage.fuses]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("fusion", ["add", "concat", "aff", "iaff", "local-local"])
def test_a_training_step_reaches_every_parameter(name: str, fusion: str) -> None:
    host = _host(EVERY[name], fusion)
    logits = host(torch.randn(2, 3, 21, 18))
    logits.square().mean().backward()
    unreached = [key for key, p in host.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias before a batch norm (the fusions have them) is subtracted again: its gradient is rounding noise or 0.
    assert [key for key in unreached if not key.endswith("bias")] == []
    assert all(p.grad is not None for p in host.parameters())


@pytest.mark.parametrize("name", ["inception", "resnext"])
@pytest.mark.parametrize("size", [(32, 32), (33, 17), (9, 50)])
def test_classifiers_take_odd_sizes(name: str, size: tuple[int, int]) -> None:
    assert _host(EVERY[name]).eval()(torch.randn(2, 3, *size)).shape == (2, 7)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(32, 32), (45, 60), (61, 47), (17, 5)])
def test_fpn_gives_logits_at_the_images_own_size(stride: int, size: tuple[int, int]) -> None:
    host = _host(f"{SMALL['fpn']}:stride={stride}").eval()
    assert host(torch.randn(1, 3, *size)).shape == (1, 7, *size)


def test_fpn_fuses_maps_of_the_low_levels_exact_size() -> None:
    seen: list[tuple[torch.Size, torch.Size]] = []

    class Watch(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            seen.append((x.shape, y.shape))
            return x + y

    host = build_host(HostSpec.parse("fpn:b=1:stride=1:pyramid=24"), lambda channels: Watch())
    host(torch.randn(2, 3, 45, 31))
    assert seen == [((2, 24, 23, 16), (2, 24, 23, 16)), ((2, 24, 45, 31), (2, 24, 45, 31))]


def test_fpn_projects_before_upsampling_which_equals_projecting_after() -> None:
    conv = nn.Conv2d(6, 4, 1, bias=False).double()
    high = torch.randn(1, 6, 5, 7, dtype=torch.float64)
    up = {"size": (9, 14), "mode": "bilinear", "align_corners": False}
    before = nn.functional.interpolate(conv(high), **up)
    torch.testing.assert_close(before, conv(nn.functional.interpolate(high, **up)))


def test_inception_fuses_its_branches_and_then_adds_the_shortcut() -> None:
    class FirstOnly(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x

    block = build_host(HostSpec.parse("inception:b=1"), lambda channels: FirstOnly()).stage1[0].eval()
    image = torch.randn(1, 16, 8, 8)
    torch.testing.assert_close(block(image), image + block.branch3(image))
    assert [block.branch3[2].kernel_size, block.branch5[2].kernel_size] == [(3, 3), (5, 5)]


def test_every_block_or_level_fuses_unless_told_otherwise() -> None:
    assert _places("inception:b=2") == [(f"stage{s}", 16 * 2 ** (s - 1)) for s in (1, 1, 2, 2, 3, 3)]
    assert _places("resnext:b=2") == [(f"stage{s}", 256 * 2 ** (s - 1)) for s in (1, 1, 2, 2, 3, 3)]
    assert sorted(_places("fpn:b=2:pyramid=48")) == [("level1", 48), ("level2", 48)]
    assert _places("inception:b=1:width=2:stages=2+3") == [("stage2", 64), ("stage3", 128)]
    assert _places("resnext:b=1:stages=3") == [("stage3", 1024)]
    assert _places("fpn:b=1:stages=2") == [("level2", 32)]
    assert _places("fpn:b=1:stages=none") == []


@pytest.mark.parametrize("name", EVERY)
def test_a_stage_the_host_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="stage"):
        _host(f"{name}:stages=4")


@pytest.mark.parametrize("name", EVERY)
def test_the_three_variants_of_the_scale_study_have_equal_counts(name: str) -> None:
    counts = {_params(_host(EVERY[name], fusion)) for fusion in ("global-global", "local-local", "aff")}
    assert len(counts) == 1


@pytest.mark.parametrize("name", EVERY)
def test_concatenation_goes_wherever_addition_goes(name: str) -> None:
    channels = [c for _, c in _places(EVERY[name])]
    added = _params(_host(EVERY[name], "concat")) - _params(_host(EVERY[name], "add"))
    assert added == sum(2 * c * c + c for c in channels)


def test_resnext_has_the_published_sizes() -> None:
    # Published as 7.8 M and 9.7 M (released code's page), where its framework counts running statistics as well.
    for b, millions in ((4, 7.8), (5, 9.7)):
        with torch.device("meta"):
            host = _host(f"resnext:b={b}", "aff:reduction=16")
        statistics = sum(buffer.numel() for buffer in host.buffers() if buffer.ndim)
        assert round((_params(host) + statistics) / 1e6, 1) == millions


def test_resnext_and_inception_have_the_depth_in_their_names() -> None:
    def weighted(host: nn.Module) -> int:
        mains = [m for n, m in host.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
        return len(mains)

    assert weighted(_host("resnext:b=4", "add")) == 38
    assert weighted(_host("resnext:b=5", "add")) == 47
    assert weighted(_host("inception:b=3", "add")) - 3 * 3 * 2 == 20  # the 5x5 branch runs beside, not after


@pytest.mark.parametrize(
    ("name", "layer", "scheme"),
    [
        ("inception", "stage3.0.branch5.2", "kaiming"),
        ("fpn", "smooth.2", "kaiming"),
        ("resnext", "stage3.0.residual.0", "xavier"),
    ],
)
def test_weights_start_by_the_scheme_of_table_2(name: str, layer: str, scheme: str) -> None:
    weight = _host(name).get_submodule(layer).weight
    fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
    expected = (2 / fan_in) ** 0.5 if scheme == "kaiming" else (2 / (fan_in + fan_out)) ** 0.5
    assert weight.std().item() == pytest.approx(expected, rel=0.05)


def test_a_fusion_of_the_wrong_shape_is_an_error_and_never_broadcast() -> None:
    class Pooled(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x + y).mean((2, 3), keepdim=True)

    host = build_host(HostSpec.parse(SMALL["inception"]), lambda channels: Pooled())
    with pytest.raises(ShapeError):
        host(torch.randn(2, 3, 16, 16))


def test_hosts_say_which_scenario_they_are() -> None:
    scenarios = {name: host.scenario for name, host in catalog.HOSTS.items()}
    assert scenarios | {"inception": "same-layer", "resnext": "short-skip", "fpn": "long-skip"} == scenarios


@pytest.mark.parametrize("name", EVERY)
def test_outputs_are_the_same_whatever_the_memory_format(name: str) -> None:
    host = _host(EVERY[name]).eval()
    image = torch.randn(2, 3, 19, 16)
    plain = host(image)
    host.to(memory_format=torch.channels_last)
    torch.testing.assert_close(host(image.contiguous(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-5)


def test_a_factory_is_called_once_for_every_place() -> None:
    asked: list[int] = []

    def factory(channels: int) -> nn.Module:
        asked.append(channels)
        return fusion_factory("add")(channels)

    build_host(HostSpec.parse("fpn:b=3"), factory)
    assert asked == [32, 32]
