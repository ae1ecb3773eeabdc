"""`afftool profile` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from afftool.cli import app
from afftool.errors import AfftoolError, LoadError, NothingMeasured, SpecError, UnknownName

SMALL = ["--channels", "8", "--size", "6", "--batch", "2", "--steps", "2", "--device", "cpu"]
FAILING = """
from torch import nn

class Gate(nn.Module):
    def forward(self, x, y):
        raise IndexError("no such channel")
"""


def run(*words: str) -> str:
    result = CliRunner().invoke(app, ["profile", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_two_variants_are_profiled_compared_and_written_and_can_be_compared_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = run("add", "sk", *SMALL, "--out", str(out), "--format", "md,json,html,csv")
    assert "add against sk" in said
    assert "aten::sigmoid" in said
    first, second = out / "add-8c-6x6-b2-infer-cpu-eager", out / "sk-8c-6x6-b2-infer-cpu-eager"
    for folder in (first, second):
        names = {path.name for path in folder.iterdir()}
        assert names == {
            *("trace.json.gz", "profile.json", "memory.csv"),
            *(f"report.{suffix}" for suffix in ("md", "json", "html", "csv")),
        }
        assert list((out / "tensorboard" / folder.name).glob("*.pt.trace.json.gz"))
    assert {path.suffix for path in out.glob("add-*--sk-*")} == {".md", ".json", ".html", ".csv"}
    again = run(str(second), str(first), "--out", str(tmp_path / "again"))
    assert "sk against add" in again
    document = json.loads(run(str(first), "--json", "--out", str(tmp_path / "again")))
    assert document["case"]["fusion"] == "add"
    assert document["schema"] == 1
    both = json.loads(run(str(first), str(second), "--json", "--out", str(tmp_path / "again")))
    assert [p["case"]["fusion"] for p in both["profiles"]] == ["add", "sk"]
    assert both["comparisons"][0]["second"]["fusion"] == "sk"


def test_what_cannot_run_here_is_skipped_and_the_rest_goes_on(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["profile", "add", *SMALL, "--backend", "cudagraph,eager", "--out", str(tmp_path), "--json"]
    )
    assert result.exit_code == 0
    assert "skipped add (cudagraph)" in result.stderr
    assert json.loads(result.stdout)["case"]["backend"] == "eager"
    with pytest.raises(NothingMeasured):
        CliRunner().invoke(
            app, ["profile", "add", *SMALL, "--backend", "cudagraph", "--out", str(tmp_path)], catch_exceptions=False
        )


def test_a_users_module_that_fails_is_told_as_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_fusions.py").write_text(FAILING)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoadError, match="IndexError: no such channel"):
        CliRunner().invoke(app, ["profile", "failing_fusions:Gate", *SMALL], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        ([], SpecError, "nothing to profile"),
        (["afff"], UnknownName, "did you mean 'aff'"),
        (["aff", "--backend", "eagre"], UnknownName, "did you mean 'eager'"),
        (["aff", "--device", "tpu"], SpecError, "not a device"),
        (["aff", "--format", "pdf"], UnknownName, "unknown format"),
    ],
)
def test_a_request_that_cannot_be_met_is_answered_before_any_work(
    words: list[str], error: type[AfftoolError], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        CliRunner().invoke(app, ["profile", *words], catch_exceptions=False)
    assert says in str(caught.value)
    assert not list(tmp_path.iterdir())
