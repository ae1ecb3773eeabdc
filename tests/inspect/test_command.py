"""`afftool inspect` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afftool.cli import app
from afftool.errors import AfftoolError, LoadError, SpecError, UnknownName
from afftool.inspect import checks

OWN = """
from torch import nn

class Gate(nn.Module):
    def __init__(self, channels, extra=1):
        super().__init__()
        self.unused = nn.Linear(channels, extra)

    def forward(self, x, y):
        return x + y
"""


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is tested here; every check has tests of its own."""
    kept = ("output", "dead parameters", "output scale")
    monkeypatch.setattr(checks, "CHECKS", {name: path for name, path in checks.CHECKS.items() if name in kept})


@pytest.mark.usefixtures("cheap")
def test_a_users_own_module_is_found_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_fusions.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    words = ["inspect", "own_fusions:Gate:extra=3", "--channels", "8", "--json", "--out", "kept.md"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    dead = next(f for f in document["findings"] if f["check"] == "dead parameters")
    assert dead["severity"] == "fault"
    assert dead["measured"]["dead_params"] == 8 * 3 + 3
    assert "is built and never called" in (tmp_path / "kept.md").read_text()


@pytest.mark.usefixtures("cheap")
def test_every_finding_is_printed_with_why_and_what_to_do() -> None:
    result = CliRunner().invoke(
        app, ["inspect", "open-iaff", "--channels", "8", "--size", "5x7"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "FAULT" in result.stdout
    assert "global\\_att2" in result.stdout or "global_att2" in result.stdout
    assert "why: " in result.stdout
    assert "do: " in result.stdout


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["open-aaf"], UnknownName, "did you mean 'open-aff'"),
        (["no_such_module:Gate"], LoadError, "no module named"),
        (["aff", "--channels", "2"], SpecError, "cannot be reduced"),
        (["aff", "--size", "1"], SpecError, "at least 2"),
        (["aff", "--size", "4x4x4"], SpecError, "does not fit"),
        (["aff", "--format", "pdf"], UnknownName, "unknown format"),
    ],
)
def test_a_request_that_cannot_be_met_is_answered_before_any_check(
    words: list[str], error: type[AfftoolError], says: str
) -> None:
    with pytest.raises(error) as caught:
        CliRunner().invoke(app, ["inspect", *words], catch_exceptions=False)
    assert says in str(caught.value)
