"""The CIFAR ResNet and the two ImageNet ones: what they fuse, where, and what they refuse."""

import pytest
import torch
from torch import nn

from afftool.catalog import HOSTS
from afftool.errors import ShapeError, SpecError
from afftool.fusion import build_fusion
from afftool.hosts import build_host, describe_host
from afftool.hosts.placement import Skip
from afftool.hosts.resnet import build
from afftool.hosts.resnet50 import build as build_resnet50
from afftool.spec import FusionSpec, HostSpec


class Watch(nn.Module):
    """A fusion that adds and keeps what it was given."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.given: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.given = (x, y)
        return x + y


def hosted(host: str, fusion: str = "add") -> nn.Module:
    return build_host(HostSpec.parse(host), FusionSpec.parse(fusion))


def params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("host", ["resnet50:stages=7", "resnext50:stages=1-5", "resnet:stages=4", "resnet:stages=0"])
def test_stages_a_host_does_not_have_are_refused_when_the_spec_is_made(host: str) -> None:
    with pytest.raises(SpecError) as refused:
        HostSpec.parse(host)
    assert refused.value.hint


@pytest.mark.parametrize("builder", [build, build_resnet50])
def test_a_builder_refuses_such_stages_before_it_builds_anything(builder: object) -> None:
    built: list[int] = []
    with pytest.raises(SpecError, match="no stage 5") as refused:
        builder(built.append, stages=(1, 5))  # type: ignore[operator]
    assert "stages=" in str(refused.value.hint)
    assert built == []


@pytest.mark.parametrize("host", ["resnet:b=1", "resnet50", "resnext50", "resnet50:stem=plain"])
def test_addition_costs_no_parameters_wherever_it_stands(host: str) -> None:
    with torch.device("meta"):
        everywhere = hosted(f"{host}:stages=none", "aff:reduction=16")
        assert params(everywhere) == params(hosted(host, "add"))
        assert params(hosted(host, "aff:reduction=16")) > params(everywhere)


def test_only_the_chosen_stages_fuse() -> None:
    stages = {stage.name: stage for stage in describe_host(HostSpec.parse("resnet50:stages=2+4"))}
    assert [len(stages[f"stage{n}"].fuses) for n in (1, 2, 3, 4)] == [0, 4, 0, 3]
    assert [f.channels for f in stages["stage4"].fuses] == [2048] * 3
    assert stages["stage2"].fuses[0].size == (28, 28)
    assert (stages["stage3"].blocks, stages["stage3"].channels, stages["stage3"].size) == (6, 1024, (14, 14))


def test_the_cifar_host_is_described_at_the_size_asked_for() -> None:
    stages = describe_host(HostSpec.parse("resnet:b=2:width=4"), size=64)
    assert [(s.name, s.blocks, s.channels, s.size) for s in stages] == [
        ("stem", 1, 64, (64, 64)),
        ("stage1", 2, 64, (64, 64)),
        ("stage2", 2, 128, (32, 32)),
        ("stage3", 2, 256, (16, 16)),
        ("head", 1, 100, ()),
    ]
    assert all(len(s.fuses) == (2 if s.name.startswith("stage") else 0) for s in stages)


def test_describing_a_host_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    describe_host(HostSpec.parse("resnet50"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_host_that_fuses_maps_of_other_channels_than_it_said_is_explained() -> None:
    from afftool.hosts.stages import read_stages

    class Wrong(nn.Module):
        def __init__(self, fusion: object) -> None:
            super().__init__()
            self.fuse = fusion(7)  # type: ignore[operator]

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.fuse(image, image)  # type: ignore[no-any-return]

    with pytest.raises(ShapeError, match="7 channels"):
        read_stages(Wrong, 8)


@pytest.mark.parametrize("builder", [build, build_resnet50])
def test_x_is_the_shortcut_and_y_the_learned_residual(builder: object) -> None:
    host = builder(Watch, stages=(2,)).eval()  # type: ignore[operator]
    first, second = host.stage2[0], host.stage2[1]
    entered: dict[str, torch.Tensor] = {}
    second.register_forward_pre_hook(lambda module, args: entered.update(second=args[0].clone()))
    host(torch.randn(1, 3, 32, 32))
    assert torch.equal(second.fuse.given[0], entered["second"])
    assert first.fuse.given[0].shape == first.fuse.given[1].shape
    assert isinstance(host.stage1[0].fuse, Skip)


def test_nothing_follows_the_fusion_of_the_cifar_host_and_a_relu_that_of_imagenet() -> None:
    image = torch.randn(2, 3, 32, 32)
    for builder, negative in ((build, True), (build_resnet50, False)):
        host = builder(Watch, stages=(2,)).eval()
        outputs: list[torch.Tensor] = []
        host.stage2[0].register_forward_hook(lambda module, args, output, kept=outputs: kept.append(output.clone()))
        host(image)
        fused = sum(host.stage2[0].fuse.given)
        assert bool((outputs[0] < 0).any()) is negative
        assert torch.equal(outputs[0], fused if negative else fused.relu())


def test_the_image_is_normalised_by_a_batch_norm_without_weights() -> None:
    norm = hosted("resnet").get_submodule("stem.0")
    assert isinstance(norm, nn.BatchNorm2d)
    assert not list(norm.parameters())


@pytest.mark.parametrize(("host", "classes"), [("resnet:b=1:classes=7", 7), ("resnet50:classes=5", 5)])
@pytest.mark.parametrize("size", [(33, 47), (40, 40)])
def test_odd_sizes_work_and_every_parameter_gets_a_gradient(host: str, classes: int, size: tuple[int, int]) -> None:
    module = hosted(host, "aff:reduction=16")
    logits = module(torch.randn(2, 3, *size))
    assert logits.shape == (2, classes)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_hosts_start_as_in_the_paper_and_leave_the_fusion_s_own_start_alone() -> None:
    class Marked(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 1)
            nn.init.constant_(self.conv.weight, 0.5)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + self.conv(y)

    host = build(Marked, b=1, width=4)
    convolution = host.stage3[0].residual[5]
    fan_in = convolution.weight[0].numel()
    assert convolution.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    assert bool((host.stage3[0].fuse.conv.weight == 0.5).all())
    grouped = hosted("resnext50").get_submodule("stage4.2.residual.0")
    bound = (6 / (grouped.weight.shape[0] + grouped.weight.shape[1])) ** 0.5
    assert grouped.weight.abs().max().item() == pytest.approx(bound, rel=0.001)


def test_a_skip_refuses_to_broadcast() -> None:
    with pytest.raises(ShapeError):
        Skip()(torch.ones(1, 2, 3, 3), torch.ones(1, 2, 1, 1))


@pytest.mark.parametrize("name", [name for name, host in HOSTS.items() if host.widths])
def test_the_catalog_knows_the_widths_at_which_a_host_fuses(name: str) -> None:
    widths: list[int] = []

    def fuse(channels: int) -> torch.nn.Module:
        widths.append(channels)
        return build_fusion("add", channels=channels)

    stages = "1-4" if len(HOSTS[name].widths) == 4 else "1-3"
    build_host(HostSpec.parse(f"{name}:stages={stages}"), fuse)
    assert tuple(dict.fromkeys(widths)) == HOSTS[name].widths
