"""A side whose afftool is another one's."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from afftool.errors import BaselineError
from afftool.gate.config import GateCase
from afftool.gate.side import Side, read_environment
from afftool.gate.worker import Worker
from afftool.gate.worktree import ImportPlan
from afftool.record import Environment
from afftool.spec import CaseSpec, FusionSpec

OTHER_PROTOCOL = "input()\nprint('{\"protocol\": 1}', flush=True)\ninput()\n"


@pytest.mark.parametrize(
    ("worker", "words", "hint"),
    [
        (None, "no afftool worker starts in", "too old"),
        (OTHER_PROTOCOL, "speaks another protocol (1, not 2)", "newer ref"),
        ("raise ImportError('half an installation')\n", "no afftool worker starts in", "too old"),
    ],
)
def test_a_commit_whose_afftool_cannot_be_talked_to_is_refused_with_a_hint(tmp_path, capfd, worker, words, hint):
    folder = tmp_path / "afftool" / "gate"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    if worker is not None:
        (folder / "worker.py").write_text(worker)
    with Side(tmp_path, ImportPlan((tmp_path,), ("afftool",), tmp_path)) as side, pytest.raises(BaselineError) as told:
        side.ask("environment")
    assert words in told.value.message
    assert hint in told.value.hint
    assert told.value.exit_code == 5


def test_a_path_of_python_is_kept_behind_the_side_s_own(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["elsewhere", os.environ.get("PYTHONPATH", "")]))
    with Side(tmp_path, ImportPlan((tmp_path,), ())) as side:
        assert side.ask("hello", packages=[], tree=None)["protocol"] == 2


def test_a_side_s_environment_has_the_gpu_of_its_cases(monkeypatch):
    here, case = Environment(afftool="1", python="3"), CaseSpec(fusion=FusionSpec.parse("add"))
    asked = []
    monkeypatch.setattr("afftool.environment.read", lambda device: asked.append(device) or here)
    monkeypatch.setattr("afftool.device.count_gpus", lambda: 2)
    answers = SimpleNamespace(ask=lambda question, **words: getattr(Worker(), question)(**words))
    for devices in (["cpu"], ["cpu", "cuda:1"], ["auto"], ["cuda:7"]):
        cases = [GateCase(name=str(n), spec=replace(case, device=device)) for n, device in enumerate(devices)]
        assert read_environment(answers, cases) == here
    assert asked == ["cpu", "cuda:1", "cuda:0", "cpu"]
