"""A side whose afftool is another one's."""

import os

import pytest

from afftool.errors import BaselineError
from afftool.gate.side import Side
from afftool.gate.worktree import ImportPlan

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
