"""`afftool bench --cases FILE`: the cases that `afftool check` reads, measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from afftool.cli import main
from afftool.gate import config
from afftool.store import Store

CASES = """
[[case]]
fusion = ["aff", "iaff"]
channels = 8
size = 7
batch = 2
sites = 3

[[case]]
fusion = "aff:ndim=3"
channels = 4
size = "3x4x5"
rules = { latency_ms = "10%" }
sites = 1
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFFTOOL_STORE", raising=False)
    Path("cases.toml").write_text(CASES)


def bench(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["afftool", "bench", "--measure", "cost", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def test_each_table_is_a_sweep_and_the_baseline_serves_all(monkeypatch) -> None:
    assert bench(monkeypatch, "--cases", "cases.toml") == 0
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        rows = store.run("latest").records
    assert [(row.fusion, row.channels, row.depth, row.width, row.batch) for row in rows] == [
        ("add", 8, None, 7, 2),
        ("aff", 8, None, 7, 2),
        ("iaff", 8, None, 7, 2),
        ("add:ndim=3", 4, 3, 5, 8),
        ("aff:ndim=3", 4, 3, 5, 8),
    ]


def test_check_reads_the_same_file() -> None:
    names = [case.name for case in config.read(Path("cases.toml")).cases]
    assert names == [
        "aff channels=8 size=7x7 batch=2",
        "iaff channels=8 size=7x7 batch=2",
        "aff:ndim=3 channels=4 size=3x4x5 batch=8",
    ]


def test_a_case_told_twice_is_measured_once(monkeypatch) -> None:
    Path("cases.toml").write_text(2 * '[[case]]\nfusion = "aff"\nsize = 7\n')
    assert bench(monkeypatch, "--cases", "cases.toml", "--baseline", "none") == 0
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        assert [row.fusion for row in store.run("latest").records] == ["aff"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cases.toml names no case"),
        ("[case]\n", "case in cases.toml is not a list of tables"),
        ("[[case]]\nsize = 7\n", "case 1 of cases.toml has no fusion"),
        ("[[case]]\nfusion = 'aff'\n[[case]]\nfusion = 'afff'\n", "case 2 of cases.toml: unknown fusion 'afff'"),
        ("[[case]]\nfusion = 'aff'\nhost = 'resnett'\n", "case 1 of cases.toml: unknown host 'resnett'"),
        ("[[case]]\nfusion = 'aff'\nchannels = 'wide'\n", "case 1 of cases.toml: channels 'wide' is no whole number"),
        ("[[case]]\nfusion = 'aff'\nsites = 0\n", "sites of case 1 of cases.toml: 0 is no whole number"),
        ("[[case]]\nfusion = 'aff'\nsites = 'four'\n", "sites of case 1 of cases.toml is 'four'"),
        ("[[case]]\nfusion = 'aff'\nbackend = 'compile'\n", "backend of case 1 of cases.toml is for `afftool check`"),
        ("[[case]]\nfusion = 'aff'\nsise = 7\n", "unknown key in case 1 of cases.toml: 'sise'"),
        ("[[case]\n", "cases.toml is not TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_place(monkeypatch, capsys, text: str, message: str) -> None:
    Path("cases.toml").write_text(text)
    assert bench(monkeypatch, "--cases", "cases.toml") == 2
    assert message in capsys.readouterr().err
    assert not Path(".afftool").exists()


@pytest.mark.parametrize("more", [["--fusion", "aff"], ["--size", "7"], ["--memory-format", "channels_last"]])
def test_cases_are_described_in_one_place_alone(monkeypatch, capsys, more: list[str]) -> None:
    assert bench(monkeypatch, "--cases", "cases.toml", *more) == 2
    assert f"{more[0]} describes cases, and so does --cases cases.toml" in capsys.readouterr().err


def test_a_bench_of_nothing_says_how_to_name_something(monkeypatch, capsys) -> None:
    assert bench(monkeypatch) == 2
    assert "no fusion was named" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(monkeypatch, capsys) -> None:
    assert bench(monkeypatch, "--cases", "none.toml") == 2
    assert "none.toml cannot be read" in capsys.readouterr().err
