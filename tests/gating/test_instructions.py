"""Instruction counts, where valgrind is."""

import pytest

from afftool.errors import Unavailable
from afftool.gate import stopwatch as instructions


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(instructions.shutil, "which", lambda tool: None if tool == "valgrind" else tool)
    assert "valgrind is not installed (Debian, Ubuntu: apt-get install valgrind)" in instructions.why_not()
    with pytest.raises(Unavailable, match="not installed"):
        instructions.count_instructions({"device": "cpu"})


def test_it_is_for_linux_and_for_the_cpu(monkeypatch):
    assert "runs on cuda:0" in instructions.why_not("cuda:0")
    monkeypatch.setattr(instructions.platform, "system", lambda: "Darwin")
    assert "this is Darwin" in instructions.why_not()
