"""The `fusion_gate` fixture, in pytest runs of their own."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from afftool.errors import SpecError, UnknownKey
from afftool.gate.fixture import check_cost as fusion_gate

ROOT = Path(__file__).parents[2]
GATE = """\
import torch
from torch import nn


class MyGate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x, y):
        return x + self.conv(y)
"""
TESTS = """\
import sys


def test_without_the_fixture_torch_is_not_imported():
    assert "torch" not in sys.modules


def test_gate(fusion_gate):
    assert "torch" not in sys.modules
    fusion_gate("gates:MyGate", channels=64, size=56, params=4160, macs_max=102_760_448)


def test_too_much(fusion_gate):
    fusion_gate("gates:MyGate", channels=64, size=(8, 4), params=4000, macs_max=10, live_params_min=1)
"""


def run(folder, *options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_plugin_is_registered_under_pytest11():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"afftool": "afftool.pytest_plugin"}


def test_a_gate_holds_or_fails_with_what_the_fusion_is_made_of(tmp_path):
    (tmp_path / "gates.py").write_text(GATE)
    (tmp_path / "test_gates.py").write_text(TESTS)
    done = run(tmp_path, *(["-p", "afftool.pytest_plugin"] if not _is_installed() else []))
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    assert "params is 4,160, exactly 4,000 was asked (+160) (conv.weight 4,096, conv.bias 64)" in done.stdout
    assert "macs is 1,048,576, at most 10 was asked" in done.stdout
    assert "live_params is" not in done.stdout


def _is_installed():
    from importlib import metadata

    return any(point.name == "afftool" for point in metadata.entry_points(group="pytest11"))


def test_unknown_limits_are_refused_with_the_nearest_name():
    with pytest.raises(UnknownKey) as refused:
        fusion_gate("add", parms_max=3)
    assert "params_max" in refused.value.hint
    with pytest.raises(UnknownKey, match="differs from run to run") as time:
        fusion_gate("add", latency_ms_max=3)
    assert "--against" in time.value.hint
    with pytest.raises(TypeError, match="params='many' is not a number"):
        fusion_gate("add", params="many")


def test_the_numbers_are_handed_back():
    counted = fusion_gate("aff", channels=16, size=4, batch=2, params_min=1, saved_bytes_max=10**6)
    assert counted["params"] > 0
    assert set(counted) == {"params", "saved_bytes"}


def test_a_case_that_cannot_be_and_several_cases_are_refused_with_the_reason():
    with pytest.raises(SpecError, match=r"'all' with these options makes \d+") as several:
        fusion_gate("all", channels=16, size=4)
    assert "one fusion" in several.value.hint
    with pytest.raises(SpecError, match=r"makes \d+, of which \d+ cannot be: .*cannot be reduced by 4"):
        fusion_gate("all", channels=2, size=4)
    with pytest.raises(SpecError, match="2 channels cannot be reduced by 4"):
        fusion_gate("aff", channels=2, size=4)
