"""A side whose afftool is another one's."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from afftool.allocator import KEEPING
from afftool.errors import BaselineError
from afftool.gate.config import GateCase
from afftool.gate.side import CrashError, Side, case_fields, read_environment
from afftool.gate.worker import Worker
from afftool.gate.worktree import ImportPlan
from afftool.record import Environment
from afftool.spec import CaseSpec, FusionSpec

HANGS = "import time\ninput()\nprint('{\"protocol\": 2}', flush=True)\ninput()\ntime.sleep(600)\n"
OTHER_PROTOCOL = "input()\nprint('{\"protocol\": 1}', flush=True)\ninput()\n"


def side_of(folder, worker):
    """A side in `folder` with an afftool that is nothing but this worker, or has none."""
    package = folder / "afftool" / "gate"
    package.mkdir(parents=True)
    for each in (package, package.parent):
        (each / "__init__.py").touch()
    if worker is not None:
        (package / "worker.py").write_text(worker)
    return Side(folder, ImportPlan((folder,), ("afftool",), folder))


@pytest.mark.parametrize(
    ("worker", "words", "hint"),
    [
        (None, "no afftool worker starts in", "too old"),
        (OTHER_PROTOCOL, "speaks another protocol (1, not 2)", "newer ref"),
        ("raise ImportError('half an installation')\n", "no afftool worker starts in", "too old"),
    ],
)
def test_a_commit_whose_afftool_cannot_be_talked_to_is_refused_with_a_hint(tmp_path, capfd, worker, words, hint):
    with side_of(tmp_path, worker) as side, pytest.raises(BaselineError) as told:
        side.ask("environment")
    assert words in told.value.message
    assert hint in told.value.hint
    assert told.value.exit_code == 5


def test_a_side_that_hangs_is_ended_and_its_case_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("afftool.gate.side.SILENT_S", 2.0)
    with side_of(tmp_path, HANGS) as side, pytest.raises(CrashError, match="did not answer for 2 s"):
        side.ask("environment")


def test_a_side_keeps_the_memory_that_it_frees_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    says = "import json, os\ninput()\nprint(json.dumps({'protocol': 2}), flush=True)\ninput()\n"
    says += "print(json.dumps({name: os.environ.get(name) for name in " + repr(list(KEEPING)) + "}), flush=True)\n"
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "4096")
    with side_of(tmp_path, says) as side:
        assert side.ask("environment") == {"MALLOC_TRIM_THRESHOLD_": "4096", "MALLOC_MMAP_MAX_": "0"}


def test_a_side_that_is_started_is_fresh_and_is_not_waited_for(tmp_path):
    with side_of(tmp_path, "import time\ntime.sleep(600)\n") as side:
        side.start()
        first = side._child.pid
        side.start()
        assert side._child.pid != first


def test_a_case_is_built_on_all_cores_once_the_one_before_is_gone_and_timed_on_its_own(monkeypatch):
    told = []

    class Watch:
        def __init__(self, spec, backend):
            told.append(("built", len(worker._watches)))

        def warm(self, budget_s):
            return 1.0

    worker = Worker()
    monkeypatch.setattr("afftool.gate.worker.Stopwatch", Watch)
    monkeypatch.setattr("os.sched_setaffinity", lambda process, cores: told.append(("cores", set(cores))))
    for fusion in ("add", "concat"):
        worker.warm(case_fields(GateCase(name="a", spec=CaseSpec(fusion=FusionSpec.parse(fusion)))), 1.0, core=0)
    cores = os.sched_getaffinity(0)
    assert told == [("cores", cores), ("built", 0), ("cores", {0})] * 2


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
