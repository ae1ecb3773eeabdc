"""A user's module that prints, under every command that writes JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from afftool.cli import main
from afftool.inspect import checks

NOISY = """
import os
from torch import nn

print("said while it is imported")

class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.local = nn.Conv2d(channels, channels, 1)

    def forward(self, x, y):
        print("said by print")
        os.write(1, b"said by the descriptor\\n")
        return x + y * self.local(x).sigmoid()
"""
SMALL = ["--channels", "4", "--size", "4", "--batch", "2"]
BRIEF = ["--budget", "0.05", "--processes", "1", "--baseline", "none"]
CELLS = ["--data", "digits", "--train-images", "96", "--batch", "32", "--epochs", "1", "--seeds", "1", "--workers", "0"]


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "--fusion", "noisy_one:Gate", *SMALL, *BRIEF, "--backend", "eager", "--explain"],
        ["profile", "noisy_one:Gate", *SMALL, "--steps", "1", "--device", "cpu"],
        ["inspect", "noisy_one:Gate", *SMALL],
        ["ablate", "scale", "--variants", "noisy_one:Gate,add", "--any-budget", "--baseline", "add", *CELLS],
    ],
    ids=lambda words: words[0],
)
def test_what_a_module_prints_stays_out_of_the_document(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noisy_one.py").write_text(NOISY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFFTOOL_STORE", raising=False)
    monkeypatch.delitem(sys.modules, "noisy_one", raising=False)
    monkeypatch.setattr(checks, "CHECKS", {name: checks.CHECKS[name] for name in ("output", "output scale")})
    monkeypatch.setattr(sys, "argv", ["afftool", *words, "--json"])
    with pytest.raises(SystemExit) as left:
        main()
    captured = capfd.readouterr()
    assert not left.value.code, captured.err
    assert json.loads(captured.out)
    for said in ("while it is imported", "by print", "by the descriptor"):
        assert f"said {said}" in captured.err
