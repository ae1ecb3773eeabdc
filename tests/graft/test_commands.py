"""A grafted network is a host like any other: what bench, profile, describe and check make of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocks_net import PLACES, written
from fake_time import TickingClock

from afftool.bench import Options, bench
from afftool.cli import main
from afftool.gate import config
from afftool.gate.worktree import targets
from afftool.spec import CaseSpec, FusionSpec, HostSpec

pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with written(tmp_path, monkeypatch) as name:
        yield name


def afftool(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["afftool", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


WAYS = (
    {"mode": "train", "memory_format": "channels_last"},
    {"dtype": "bfloat16"},
)


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_is_timed_in_each_way_against_the_original(net: str, way: dict[str, str]) -> None:
    host = HostSpec.parse(f"graft:{net}:Net")
    case = CaseSpec(fusion=FusionSpec.parse("aff"), host=host, channels=None, size=(16, 16), batch=2, **way)
    asked = Options(measures=("latency", "memory"), precision=0.9, baseline=FusionSpec.parse("original"))
    original, aff = bench([case], asked, clock=TickingClock())
    assert [(row.status, row.reason) for row in (original, aff)] == [("ok", None)] * 2
    assert (original.fusion, aff.baseline, aff.fused_at) == ("original", "original", PLACES)
    assert aff.latency_ratio is not None
    assert aff.peak_bytes > original.peak_bytes


def test_per_module_lists_what_is_called_and_says_where_the_rest_is(net, monkeypatch, capsys) -> None:
    words = ("--host", f"graft:{net}:Net:at=3", "--fusion", "aff", "--size", "16", "--measure", "cost")
    assert afftool(monkeypatch, "bench", *words, "--per-module", "--explain") == 0
    said = capsys.readouterr().out
    assert "Its own parts run as one graph and are not called" in said
    assert "GatedFusion" in said
    assert "Block" not in said
    assert "Operators of original" in said


def test_a_profile_names_the_fusions_by_their_sites(net, monkeypatch, capsys) -> None:
    words = ("--host", f"graft:{net}:Net:at=3", "--size", "16", "--batch", "2", "--steps", "1", "--json")
    assert afftool(monkeypatch, "profile", "aff", *words) == 0
    assert "fusions.3" in json.dumps(json.loads(capsys.readouterr().out))


def test_describe_tells_its_keys_and_where_it_fuses(net, monkeypatch, capsys) -> None:
    assert afftool(monkeypatch, "describe", f"graft:{net}:Net:at=add", "--size", "16") == 0
    said = capsys.readouterr().out
    assert "inside " in said, "a key"
    assert "additions" in said
    assert "16x16" in said
    assert afftool(monkeypatch, "describe", "original") == 0
    assert "joins by itself" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("inspect", "original"), ("bench", "--fusion", "original", "--host", "resnet")])
def test_the_original_of_what_is_no_network_of_yours_is_refused(monkeypatch, capsys, words: tuple[str, ...]) -> None:
    assert afftool(monkeypatch, *words) == 2
    assert "use it with --host graft:pkg.mod:build" in capsys.readouterr().err


@pytest.mark.long
def test_the_gate_holds_it_and_sees_a_change_of_the_network(net, monkeypatch, capsys) -> None:
    host = f'host = "graft:{net}:Net:at=add"\nsize = 16\nbatch = 2\n'
    Path("afftool.toml").write_text(f'metrics = ["params"]\n[[case]]\nfusion = ["original", "aff"]\n{host}')
    assert targets(config.read(Path("afftool.toml")).cases) == (net,)
    assert afftool(monkeypatch, "check", "--write-baseline") == 0
    source = Path(f"{net}.py")
    source.write_text(source.read_text().replace("width=8", "width=12"))
    sys.modules.pop(net, None)
    assert afftool(monkeypatch, "check") == 3
    assert f"regression: params of aff in graft:{net}:Net:at=add" in capsys.readouterr().out


def test_a_case_of_a_file_is_a_network_with_its_original_as_the_baseline(net, monkeypatch, capsys) -> None:
    Path("cases.toml").write_text(f'[[case]]\nfusion = "aff"\nhost = "graft:{net}:Net:at=3"\nsize = 16\nbatch = 2\n')
    assert afftool(monkeypatch, "bench", "--cases", "cases.toml", "--measure", "cost", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["fusion"] for row in document["records"]] == ["original", "aff"]
    assert [row["sites"] for row in document["in_context"]] == [1]
