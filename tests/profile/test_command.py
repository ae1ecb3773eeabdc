"""`afftool profile` as a person types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn
from typer.testing import CliRunner

from afftool.cli import app
from afftool.errors import AfftoolError, LoadError, NothingMeasured, Rejected, SpecError, UnknownName
from afftool.fusion import build_fusion
from afftool.spec import FusionSpec

SMALL = ["--channels", "8", "--size", "6", "--batch", "2", "--steps", "2", "--device", "cpu"]
FAILING = """
from torch import nn

class Gate(nn.Module):
    def forward(self, x, y):
        raise IndexError("no such channel")
"""
BROKEN = """
import torch
from torch import nn

class Raises(nn.Module):
    def forward(self, x, y):
        raise IndexError("no such channel")

class Exits(nn.Module):
    def forward(self, x, y):
        raise SystemExit(3)

class Huge(nn.Module):
    def forward(self, x, y):
        return x + torch.empty(1 << 60)
"""


def _out_of_memory_for(fusion: str, build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def build_or_fail(spec: FusionSpec, **settings: int) -> nn.Module:
        if spec.text == fusion:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        return build(spec, **settings)

    return build_or_fail


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


def test_a_step_that_is_not_finite_is_said_on_screen_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profile_not_finite.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Half(nn.Module):\n    def forward(self, x, y):\n"
        "        total = x + y\n        half = total[:, ::2]\n        return torch.cat([half / (half * 0), half], 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    printed = run("profile_not_finite:Half", *SMALL, "--out", str(tmp_path / "out"))
    assert "Not finite: 50% of what a step gives, gradients too, is infinite or NaN." in printed
    [stored] = (tmp_path / "out").glob("*/profile.json")
    assert json.loads(stored.read_text())["nonfinite_share"] == 0.5


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


@pytest.mark.parametrize("first", ["broken_fusions:Raises", "broken_fusions:Exits", "broken_fusions:Huge", "aff"])
def test_a_case_that_fails_is_told_in_a_line_and_the_next_is_profiled(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_fusions.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    if first == "aff":  # as the allocator of the CPU says it while a case is built
        monkeypatch.setattr("afftool.build.build_fusion", _out_of_memory_for("aff", build_fusion))
    result = CliRunner().invoke(app, ["profile", first, "add", *SMALL, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"failed {first} (eager): " in result.stderr
    assert json.loads(result.stdout)["case"]["fusion"] == "add"


def test_a_case_that_needs_more_memory_than_there_is_says_so_and_what_to_do(tmp_path: Path) -> None:
    words = ["profile", "aff", "--channels", "64", "--size", "60000", "--batch", "4096", "--device", "cpu"]
    with pytest.raises(NothingMeasured, match=r"needs at least.*smaller --batch"):
        CliRunner().invoke(app, [*words, "--out", str(tmp_path)], catch_exceptions=False)


def test_a_result_that_must_not_be_kept_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rejected(*_: object, **__: object) -> None:
        raise Rejected("it is compiled again in every step", hint="look at TORCH_LOGS")

    monkeypatch.setattr("afftool.profile.capture.capture", rejected)
    with pytest.raises(NothingMeasured, match="compiled again in every step"):
        CliRunner().invoke(app, ["profile", "add", *SMALL, "--out", str(tmp_path)], catch_exceptions=False)


@pytest.mark.parametrize("out", ["taken", "taken/below"])
def test_an_out_that_is_a_file_or_under_one_is_refused_before_anything_is_measured(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "taken").write_text("mine")
    monkeypatch.setattr("afftool.profile.run.profile_case", None)
    with pytest.raises(LoadError, match="cannot be written"):
        CliRunner().invoke(app, ["profile", "add", *SMALL, "--out", str(tmp_path / out)], catch_exceptions=False)
    assert (tmp_path / "taken").read_text() == "mine"


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


def test_what_is_no_module_is_refused_before_anything_is_profiled(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="gave a str, not an nn"):
        CliRunner().invoke(app, ["profile", "add", "os:getcwd", *SMALL, "--out", str(tmp_path)], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []
