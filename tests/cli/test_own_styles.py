"""Modules of other people's at the command line: built and said, or an error with the words that work."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from afftool.build import build_case
from afftool.cli import main
from afftool.inspect.checks import review
from afftool.inspect.subject import subject_of
from afftool.measure.ceilings.roofline import demand
from afftool.spec import CaseSpec, FusionSpec
from afftool.store import Store

FILE = """
import torch
from torch import nn

class InChannels(nn.Module):
    def __init__(self, in_channels, ratio=4):
        super().__init__()
        self.fc = nn.Conv2d(in_channels, in_channels, 1)
    def forward(self, x, y):
        return self.fc(x + y)

class Two(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Conv2d(2 * channels, channels, 1)
    def forward(self, x, y):
        return x + nn.functional.interpolate(self.fc(y), size=x.shape[2:])

class Three(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Conv2d(3 * channels, channels, 1)
    def forward(self, x, y, z):
        return self.fc(torch.cat([x, y, z], 1))

class OneMap(nn.Module):
    def forward(self, x):
        return x.relu()

class SE(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(channels, channels // reduction), nn.Linear(channels // reduction, channels))
    def forward(self, x, y):
        return x * self.fc((x + y).mean((2, 3)))[:, :, None, None] + y
"""
COST = ["bench", "--measure", "cost", "--size", "8", "--batch", "1", "--device", "cpu"]
TIMED = ["bench", "--backend", "eager", "--threads", "1", "--budget", "0.2", "--device", "cpu", "--allocator", "kept"]


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "shop.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFFTOOL_STORE", raising=False)
    monkeypatch.setattr("afftool.fusion.own._assumed", {})
    path = list(sys.path)
    yield
    for name in ("nets", "nets.shop"):
        sys.modules.pop(name, None)
    sys.path[:] = path


def afftool(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["afftool", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def latest() -> dict[str, dict]:
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        return {record.fusion: record.to_dict() for record in store.run("latest").records}


def test_a_width_that_was_found_is_said_once_and_counted_by_hand(monkeypatch, capsys) -> None:
    assert afftool(monkeypatch, *COST, "-f", "nets/shop.py:InChannels", "-c", "8,16") == 0
    told = capsys.readouterr().err
    assert told.count("in_channels is taken for the width; say nets.shop:InChannels:in_channels={channels}") == 1
    assert latest()["nets.shop:InChannels"]["params"] == 16 * 16 + 16


def test_a_width_that_is_told_is_filled_in_at_each_width_of_a_host(monkeypatch, capsys) -> None:
    fusion = "nets.shop:InChannels:in_channels={channels}"
    words = ["bench", "-m", "cost", "--device", "cpu", "-f", fusion, "--host", "resnet:b=1", "-s", "8"]
    assert afftool(monkeypatch, *words) == 0
    rows = latest()
    extra = sum(width * width + width for width in (16, 32, 64))
    assert rows[fusion]["params"] == rows["add"]["params"] + extra
    assert "taken for" not in capsys.readouterr().err


def test_three_maps_are_found_and_compared_with_the_sum_of_three(monkeypatch, capsys) -> None:
    assert afftool(monkeypatch, *COST, "-f", "nets.shop:Three", "-c", "4") == 0
    rows = latest()
    assert list(rows) == ["add:inputs=3", "nets.shop:Three:inputs=3"]
    assert rows["nets.shop:Three:inputs=3"]["macs"] == 3 * 4 * 4 * 8 * 8
    assert "its forward takes 3 maps; say nets.shop:Three:inputs=3 to be sure" in capsys.readouterr().err


def test_unequal_maps_are_measured_alone_in_training_too_and_never_best(monkeypatch, capsys) -> None:
    two = "nets.shop:Two:maps=c@s+2c@s/2"
    words = [*TIMED, "-f", f"{two},aff", "-c", "4", "-s", "6", "-b", "2", "--mode", "train"]
    assert afftool(monkeypatch, *words) == 0
    row = latest()[two]
    assert (row["status"], row["params"], row["macs"]) == ("ok", 8 * 4 + 4, 2 * 8 * 4 * 3 * 3)
    assert (row["baseline"], row["latency_ratio"]) == (None, None)
    captured = capsys.readouterr()
    assert f"{two} has no baseline: add cannot fuse its 2 maps of unequal shapes" in captured.err
    (line,) = [line for line in captured.out.splitlines() if line.startswith(f"{two}  ")]
    assert "*" not in line.removeprefix(two)


@pytest.mark.parametrize("measure", ["cost", "latency"])
def test_maps_that_do_not_fit_fail_their_row_with_the_words_that_work(measure, monkeypatch, capsys) -> None:
    words = ["-m", measure, "-c", "4", "-s", "6", "-b", "2", "--baseline", "none"]
    assert afftool(monkeypatch, *TIMED, *words, "-f", "nets.shop:Two") == 6
    assert "--fusion nets.shop:Two:maps=c@s+2c@s/2" in latest()["nets.shop:Two"]["reason"]
    assert afftool(monkeypatch, *TIMED, *words, "-f", "nets.shop:Two:maps=c@s+2c@s/2") == 0
    capsys.readouterr()


def test_one_map_taken_for_a_list_fails_its_row_with_the_words_that_work(monkeypatch, capsys) -> None:
    assert afftool(monkeypatch, *COST, "-f", "nets.shop:OneMap", "-c", "4") == 0
    assert "say nets.shop:OneMap:inputs=1" in latest()["nets.shop:OneMap"]["reason"]
    assert afftool(monkeypatch, *COST, "-f", "nets.shop:OneMap:inputs=1", "-c", "4") == 0
    assert [row["status"] for row in latest().values()] == ["ok"]
    assert "nets.shop:OneMap:inputs=1 has no baseline: add cannot fuse its 1 map" in capsys.readouterr().err


def test_a_width_that_vanishes_is_refused_and_at_one_width_of_several_is_a_row(monkeypatch, capsys) -> None:
    assert afftool(monkeypatch, *COST, "-f", "nets.shop:SE", "-c", "8") == 2
    assert "its hidden width is 0 at 8 channels" in capsys.readouterr().err
    assert afftool(monkeypatch, "inspect", "nets.shop:SE", "-c", "8") == 2
    assert "its hidden width is 0 at 8 channels" in capsys.readouterr().err
    assert afftool(monkeypatch, *COST, "-f", "nets.shop:SE", "-c", "32,8", "--baseline", "none") == 0
    row = latest()["nets.shop:SE"]
    assert row["status"] == "failed"
    assert "its hidden width is 0 at 8 channels" in row["reason"]


def test_unequal_maps_are_inspected_as_they_come_and_nothing_is_swapped(monkeypatch, capsys) -> None:
    fusion = FusionSpec.parse("nets/shop.py:Two:maps=c@s+2c@s/2")
    subject = subject_of(fusion, channels=4, size=(6, 5), batch=2)
    assert [tuple(one.shape) for one in subject.maps()] == [(2, 4, 6, 5), (2, 8, 3, 3)]
    kept = ("output", "dead parameters", "output scale", "x and y", "mismatched shapes", "ten blocks", "gate")
    from afftool.inspect import checks

    monkeypatch.setattr(checks, "CHECKS", {name: path for name, path in checks.CHECKS.items() if name in kept})
    found = {finding.check: finding for finding in review(subject)}
    assert {finding.severity for name, finding in found.items() if name != "gate"} == {"ok"}
    assert set(found) == set(kept)
    assert found["x and y"].measured["change_by_swapping"] is None
    assert found["output"].measured["shape"] == [2, 4, 6, 5]


def test_what_unequal_maps_move_is_what_they_are(monkeypatch, capsys) -> None:
    fusion = "nets.shop:Two:maps=c@s+2c@s/2"
    assert afftool(monkeypatch, *COST, "-f", fusion, "-c", "4", "--json") == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    from afftool.record import Record

    work = demand(Record.from_dict(record))
    assert work is not None
    assert work.working_set == 4 * (4 * 64 + 8 * 16 + 4 * 64)  # x, y and what comes out, in bytes


def test_a_case_of_unequal_maps_is_built_with_those_maps_in_any_memory_format() -> None:
    fusion = FusionSpec.parse("nets.shop:Two:maps=c@s+2c@s/2")
    case = build_case(CaseSpec(fusion=fusion, channels=4, size=(6, 6), batch=2, memory_format="channels_last"))
    assert [tuple(x.shape) for x in case.inputs] == [(2, 4, 6, 6), (2, 8, 3, 3)]
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in case.inputs)
    assert case.module(*case.inputs).shape == (2, 4, 6, 6)
