"""Networks that people use: their sites are those that are known, and a graft that adds is the network."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from grafted.same_network import differences
from torch import nn

from afftool.fusion import fusion_factory
from afftool.graft.network import Survey, graft
from afftool.spec import FusionSpec
from afftool.spec.graft import Selection

Shape = tuple[int, ...]


def monai(name: str, *arguments: Any, **keywords: Any) -> nn.Module:
    nets = pytest.importorskip("monai.networks.nets")
    made: nn.Module = getattr(nets, name)(*arguments, **keywords)
    return made


def transformers(name: str, **settings: Any) -> nn.Module:
    package = pytest.importorskip("transformers")
    made: nn.Module = getattr(package, name)(getattr(package, name.partition("For")[0] + "Config")(**settings))
    return made


def efficientnet() -> nn.Module:
    made: nn.Module = pytest.importorskip("efficientnet_pytorch").EfficientNet.from_name("efficientnet-b0")
    return made


def pytorchcv(module: str, name: str) -> nn.Module:
    """One of its single files; the package itself asks for torchvision, so `.ci/run` installs it by itself."""
    models = pytest.importorskip(
        f"pytorchcv.models.{module}", reason="pip install --no-deps pytorchcv runs this test", exc_type=ImportError
    )
    made: nn.Module = getattr(models, name)()
    return made


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shape, tuple[int, int]]] = {
    "MONAI UNet 2d": (
        lambda: monai("UNet", 2, 1, 2, (4, 8, 16), (2, 2), num_res_units=2, dropout=0.1),
        (1, 16, 16),
        (5, 2),
    ),
    "MONAI UNet 3d": (lambda: monai("UNet", 3, 1, 2, (4, 8, 16), (2, 2), num_res_units=2), (1, 8, 8, 8), (5, 2)),
    "MONAI SegResNet": (lambda: monai("SegResNet", 2, 8, 1, 2, dropout_prob=0.1), (1, 16, 16), (15, 0)),
    "Hugging Face ResNet": (
        lambda: transformers("ResNetForImageClassification", embedding_size=8, hidden_sizes=[8, 12, 16, 20]),
        (3, 64, 64),
        (16, 0),
    ),
    "Hugging Face ConvNeXt": (
        lambda: transformers("ConvNextForImageClassification", hidden_sizes=[8, 12, 16, 20], drop_path_rate=0.1),
        (3, 64, 64),
        (18, 0),
    ),
    "EfficientNet-B0": (efficientnet, (3, 32, 32), (9, 0)),
    "pytorchcv ResNet-20": (lambda: pytorchcv("resnet_cifar", "resnet20_cifar10"), (3, 32, 32), (9, 0)),
    "pytorchcv PreResNet-20": (lambda: pytorchcv("preresnet_cifar", "preresnet20_cifar10"), (3, 32, 32), (9, 0)),
}


LARGE = ("MONAI SegResNet", "Hugging Face ResNet", "Hugging Face ConvNeXt", "EfficientNet-B0")
"""Each takes as long as all the others."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in LARGE else []) for name in NETWORKS]
)
def test_its_sites_are_those_that_are_known_and_a_graft_that_adds_is_the_network(name: str) -> None:
    make, shape, (add, concat) = NETWORKS[name]
    net, image = make(), torch.rand(2, *shape)
    survey = Survey((image,)).look(net, "eval", "train")
    for found in survey.found.values():
        count = Counter(one.site.kind for one in found.values())
        assert (count["add"], count["concat"]) == (add, concat)
    same = copy.deepcopy(net)
    graft(net, [image], fusion_factory(FusionSpec.parse("add")), Selection(at=("add",)), survey=survey)
    assert differences(same, net, [image]) == []


def test_a_unet_skips_past_its_lower_levels_and_past_the_units_of_each() -> None:
    make, shape, _ = NETWORKS["MONAI UNet 3d"]
    sites = Survey((torch.rand(1, *shape),)).look(make(), "eval").sites
    scenarios = {kind: [site.scenario for site in sites if site.kind == kind] for kind in ("add", "concat")}
    assert set(scenarios["add"]) == {"short-skip"}
    assert scenarios["concat"] == ["short-skip", "long-skip"]  # its lowest level halves nothing
    assert all(len(site.size) == 3 for site in sites)
