"""A study is refused before any training where no gradient passes a fusion, and says where one passes in part."""

import dataclasses
from pathlib import Path

import pytest
import torch
from cut_modules import CUT
from small_cells import planned, small

from afftool.errors import LoadError
from afftool.spec import FusionSpec, HostSpec
from afftool.study.gradients import unreached
from afftool.study.network import build_network

MODULES = f"""{CUT}
class DetachedY(Plain):
    def forward(self, x, y):
        return self.fc(x + y.detach())

class InPlace(nn.Module):
    def forward(self, x, y):
        return y.mul_(2).add_(x)

class Gated(Plain):
    def forward(self, x, y):
        with torch.no_grad():
            gate = torch.sigmoid(self.fc(x))
        return x * gate + y

class Frozen(Plain):
    def __init__(self, channels):
        super().__init__(channels)
        self.requires_grad_(False)

class Global(Plain):
    def __init__(self, channels):
        super().__init__(channels)
        torch.autograd.set_detect_anomaly(True)

class Cut(nn.Module):
    def __init__(self, fusion, classes=10):
        super().__init__()
        self.stem, self.fuse, self.head = nn.Conv2d(3, 8, 3, 4), fusion(8), nn.Linear(8, classes)
    def forward(self, image):
        x = self.stem(image)
        return self.head(self.fuse(x, x * 2).mean((2, 3))).detach()
"""
HOST = "resnet:b=1:classes=10"


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study_gradients.py").write_text(MODULES)


def looked(fusion: str, host: str = HOST) -> str | None:
    network = build_network(HostSpec.parse(host), FusionSpec.parse(fusion), seed=0)
    return unreached(network, torch.rand(2, 3, 16, 16))


@pytest.mark.parametrize("name", ["NoGrad", "Detached"])
def test_a_fusion_that_no_gradient_passes_is_refused_before_any_training(name: str) -> None:
    spec = small(budget=None).with_variants(["add", f"study_gradients:{name}"])
    with pytest.raises(LoadError, match="neither its parameters nor its inputs get one") as refused:
        planned(spec)
    assert "stage1.0.fuse" in refused.value.message
    assert refused.value.exit_code == 2


def test_a_network_whose_output_is_cut_is_refused() -> None:
    with pytest.raises(LoadError, match="its output is cut from autograd"):
        looked("add", "study_gradients:Cut")


@pytest.mark.parametrize("fusion", ["add", "aff", "iaff", "study_gradients:Plain", "study_gradients:InPlace"])
def test_where_all_is_reached_there_is_nothing_to_say(fusion: str) -> None:
    assert looked(fusion) is None


def test_parameters_that_are_frozen_on_purpose_are_nothing_to_say() -> None:
    assert looked("study_gradients:Frozen") is None


def test_an_input_that_is_detached_is_said_with_what_is_not_trained_for_it() -> None:
    told = looked("study_gradients:DetachedY")
    assert told is not None
    assert "no gradient passes to y (at stage1.0.fuse, stage2.0.fuse, stage3.0.fuse)" in told
    assert "18 of the host's own 25 parameters get no gradient: stage1.0.residual." in told


def test_parameters_that_get_no_gradient_while_the_host_trains_past_them_are_named() -> None:
    told = looked("study_gradients:Gated")
    assert told is not None
    assert "the fusion's own parameters stage1.0.fuse.fc.weight, stage1.0.fuse.fc.bias" in told
    assert "host's own" not in told


def test_a_plan_warns_and_its_report_keeps_it() -> None:
    spec = small(budget=None).with_variants(["add", "study_gradients:Gated", "study_gradients:Global"])
    made = planned(dataclasses.replace(spec, seeds=(0,)))
    gradient, state = made.warnings
    assert "the fusion's own parameters" in gradient
    assert "anomaly detection: on instead of off, when it was built" in state
    assert gradient in (made.stored().notes or ())
    assert state in (made.stored().notes or ())
    assert not torch.is_anomaly_enabled()
