"""`afftool inspect` as a person types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afftool.cli import app, main
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


FAILING = {
    "raises": ("        raise ValueError('nope')", "own_failing.py:4"),
    "exits": ("        raise SystemExit(3)", "own_failing.py:4"),
}


@pytest.mark.parametrize("how", list(FAILING))
def test_a_module_that_cannot_be_called_is_told_in_the_report_and_ends_with_exit_code_2(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line, place = FAILING[how]
    (tmp_path / "own_failing.py").write_text(
        f"from torch import nn\nclass Gate(nn.Module):\n    def forward(self, x, y):\n{line}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_failing", raising=False)
    monkeypatch.setattr(sys, "argv", ["afftool", "inspect", "own_failing:Gate", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    (finding,) = json.loads(said.out)["findings"]
    assert finding["severity"] == "fault"
    assert place in finding["what"]
    assert said.err.startswith("error: own_failing:Gate cannot be inspected: calling it fails: ")


def test_a_module_that_exits_while_it_is_built_is_an_error_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_exiting.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoadError, match="SystemExit: 7"):
        CliRunner().invoke(app, ["inspect", "own_exiting:Gate"], catch_exceptions=False)


@pytest.mark.usefixtures("cheap")
def test_json_says_on_what_device_and_in_what_precision() -> None:
    result = CliRunner().invoke(app, ["inspect", "add", "--channels", "8", "--json"], catch_exceptions=False)
    document = json.loads(result.stdout)
    assert (document["device"], document["dtype"]) == ("cpu", "float32")
    assert "mode" not in document


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
