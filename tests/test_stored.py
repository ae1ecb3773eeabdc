"""What an earlier afftool stored is read as it was: a store, reports of it, identities and fingerprints.

`stored/` holds a store written by commit 6b0d65f and what `report`, `compare` and `runs` of that commit said of it. A
later afftool may say more (a key that is null, a column of its own), never something else.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from still_says import assert_still_says

from afftool.cli import main
from afftool.record import Environment
from afftool.spec import CaseSpec, FusionSpec, HostSpec
from afftool.study.cells import CellSpec
from afftool.study.recipe import recipe

STORED = Path(__file__).parent / "stored"


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Ask the stored store: what a command prints of it."""
    shutil.copy(STORED / "runs.sqlite", tmp_path / "s.sqlite")
    monkeypatch.chdir(tmp_path)

    def ask(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["afftool", *words, "--store", "s.sqlite"])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        return capsys.readouterr().out

    return ask


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(s for s in text.splitlines(True) if not s.startswith("#")))))


def assert_still_lists(now: str, then: str) -> None:
    for new, old in zip(rows(now), rows(then), strict=True):
        assert {key: value for key, value in new.items() if key in old} == old


@pytest.mark.parametrize("run", ["1", "2", "3", "4", "5"])
def test_a_stored_run_is_reported_as_it_was(said: Any, run: str) -> None:
    assert_still_says(json.loads(said("report", run, "--json")), json.loads((STORED / f"{run}.json").read_text()))
    assert_still_lists(said("report", run, "--format", "csv"), (STORED / f"{run}.csv").read_text())


def test_stored_runs_are_compared_and_listed_as_they_were(said: Any) -> None:
    now, then = said("compare", "1", "3", "--json"), (STORED / "compare-1-3.json").read_text()
    assert_still_says(json.loads(now), json.loads(then))
    assert_still_lists(said("compare", "1", "3", "--format", "csv"), (STORED / "compare-1-3.csv").read_text())
    assert_still_says(json.loads(said("runs", "--json")), json.loads((STORED / "runs.json").read_text()))


def case(fusion: str, host: str = "module", **fields: Any) -> CaseSpec:
    return CaseSpec(fusion=FusionSpec.parse(fusion), host=HostSpec.parse(host), **fields)


@pytest.mark.parametrize(
    ("spec", "identity"),
    [
        (case("aff"), "b20e8dbd7487394a"),
        (
            case("iaff:reduction=16", channels=128, size=(28, 14), batch=2, mode="train", dtype="bfloat16",
                 memory_format="channels_last"),
            "b2022aa5950125b8",
        ),
        (case("aff:ndim=1:inputs=3", size=(9,), channels=8, batch=1), "1d98751be5ea4ffe"),
        (case("aff:ndim=3", size=(4, 5, 6), channels=8, batch=1, device="cuda:0"), "8ff319f99ff8256c"),
        (
            case("sk:gain=2", "resnet50:stages=2+4:stem=plain", channels=None, size=(224, 224), batch=1),
            "3cb1a65f8e723b59",
        ),
        (
            case("mypkg.gates:MyGate:width=8:alpha=0.5", "mynets:Net:width=64", channels=None, size=(64, 64), batch=3,
                 seed=7),
            "b89482c31213913c",
        ),
    ],
)  # fmt: skip
def test_a_case_keeps_its_identity(spec: CaseSpec, identity: str) -> None:
    assert spec.identity == identity


CELL: dict[str, Any] = {
    "fusion": "aff", "host": "resnet:b=1:classes=10", "data": "shapes:size=16", "fingerprint": "0123",
    "train_images": None, "data_seed": 0, "recipe": recipe("short").to_dict(), "seed": 3,
}  # fmt: skip
RICH: dict[str, Any] = CELL | {
    "fusion": "mypkg:G:width=2", "draw": "a", "device": "cuda", "threads": 2, "dtype": "bfloat16", "compiled": True,
    "torch": "2.13.0", "training": 3, "code": "abcd",
    "recipe": recipe("paper-fpn", epochs="3", milestones="0.5+0.75", schedule="step").to_dict(),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "identity"), [(CELL, "cfbeac9319811d21"), (RICH, "3ffb41f92155af1b")])
def test_a_cell_keeps_its_identity(fields: dict[str, Any], identity: str) -> None:
    assert CellSpec.from_dict(fields).identity == identity


def test_a_machine_keeps_its_fingerprint() -> None:
    machine = Environment(
        afftool="0.1.0", python="3.11.7", torch="2.13.0+cpu", platform="Linux x86_64", cpu="AMD EPYC", cores=2,
        threads=1, memory_bytes=25, compiler="g++ 12",
    )  # fmt: skip
    assert machine.fingerprint == "7bdf008953a4"
