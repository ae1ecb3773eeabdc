"""What a graft costs in its network, and alone at the same shapes: measured, stored, and told from what is stored."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blocks_net import PLACES, written
from made_up_runs import ENVIRONMENT, record

from afftool.bench import Options, bench
from afftool.bench.elsewhere import Elsewhere
from afftool.bench.in_context import alone
from afftool.cli import main
from afftool.errors import SpecError
from afftool.record import Record, Run
from afftool.report import bench_report
from afftool.report.bench import compact_table
from afftool.report.context import alone_table, cost_in_context
from afftool.spec import CaseSpec, FusionSpec, HostSpec
from afftool.spec.places import Place
from afftool.store import Store

pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with written(tmp_path, monkeypatch) as name:
        yield name


def case(net: str, fusion: str = "aff", keys: str = "", **fields: Any) -> CaseSpec:
    host = HostSpec.parse(f"graft:{net}:Net{keys}")
    return CaseSpec(fusion=FusionSpec.parse(fusion), host=host, channels=None, size=(16, 16), **{"batch": 2} | fields)


def afftool(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["afftool", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.mark.parametrize("text", [*PLACES, "concat 3*4@5x6x7", "add 2*1@9"])
def test_a_place_is_read_back_from_its_text(text: str) -> None:
    assert Place.parse(text).text == text


@pytest.mark.parametrize("text", ["", "add", "mul 2*8@16x16", "add 2*8@16x", "add 2*8@1x2x3x4", "add -2*8@16", "\0"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="no place"):
        Place.parse(text)


@pytest.mark.parametrize(("size", "fusion"), [((9,), "aff:ndim=1:inputs=3"), ((9, 8), "aff:inputs=3")])
def test_a_bare_fusion_is_made_as_the_site_has_it(net: str, size: tuple[int, ...], fusion: str) -> None:
    found = Place("concat", 3, 8, size).alone(case(net), FusionSpec.parse("aff"))
    assert (found.fusion.text, found.host.text, found.channels, found.size) == (fusion, "module", 8, size)


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_a_record_says_where_its_network_fuses_and_what_its_adapters_have(net: str, mode: str) -> None:
    given = [case(net, fusion, mode=mode) for fusion in ("original", "aff")]
    original, aff = bench(given, Options(measures=("cost",), baseline=None))
    assert (original.fused_at, original.adapter_params) == (None, None)
    assert aff.fused_at == PLACES
    assert aff.adapter_params == (8 * 16 + 16) + (16 * 24 + 24)
    assert Record.from_dict(aff.to_dict()) == aff


def test_only_the_sites_that_are_chosen_count(net: str) -> None:
    (aff,) = bench([case(net, keys=":at=add:stage=2")], Options(measures=("cost",), baseline=None))
    assert aff.fused_at == {"add 2*16@8x8": 1}
    assert aff.adapter_params == 0


def test_each_fusion_is_alone_once_a_shape_and_add_stands_for_the_additions(net: str) -> None:
    found = alone([case(net, fusion, dtype="bfloat16") for fusion in ("original", "aff", "concat")])
    assert {(one.host.text, one.batch, one.dtype) for one in found} == {("module", 2, "bfloat16")}
    shapes = [(one.fusion.text, one.channels, one.size[0]) for one in found]
    assert sorted(shapes) == sorted(
        [("add", 8, 16), ("add", 16, 8)]
        + [(fusion, *shape) for fusion in ("aff", "concat") for shape in ((8, 16), (16, 8), (16, 16))]
    )


def test_in_a_process_of_its_own_the_users_file_is_looked_at_there(net: str) -> None:
    elsewhere = Elsewhere(120.0)
    try:
        found = alone([case(net)], elsewhere.places)
        (aff,) = bench([case(net)], Options(measures=("cost",), baseline=None, isolate="process"), elsewhere=elsewhere)
    finally:
        elsewhere.close()
    assert len(found) == 5
    assert (aff.status, aff.fused_at) == ("ok", PLACES)
    assert net not in sys.modules


def grafted(fusion: str, latency_ms: float, **fields: Any) -> Record:
    given = {"host": "graft:nets:Net", "channels": None, "height": 16, "width": 16, "params": 100, "macs": 1000}
    more = {} if fusion == "original" else {"fused_at": PLACES, "adapter_params": 7, "params": 130, "macs": 1900}
    return record(fusion, latency_ms=latency_ms, **given | more | fields)


def bare(fusion: str, latency_ms: float, channels: int, extent: int, **fields: Any) -> Record:
    return record(fusion, latency_ms=latency_ms, channels=channels, height=extent, width=extent, **fields)


def in_context() -> list[Record]:
    paired = {"baseline": "original", "latency_ratio": 1.5, "latency_ratio_low": 1.25, "latency_ratio_high": 2.0}
    return [
        grafted("original", 4.0),
        grafted("aff", 6.5, **paired),
        grafted("original", 2.0, backend="compile"),
        grafted("aff", 2.5, backend="compile"),
        *(bare("add", 0.25, *shape) for shape in ((8, 16), (16, 8))),
        *(bare("aff", 1.0, *shape) for shape in ((8, 16), (16, 8), (16, 16))),
        *(bare("add", 0.25, *shape, backend="compile") for shape in ((8, 16), (16, 8))),
        *(bare("aff", 0.5, *shape, backend="compile") for shape in ((8, 16), (16, 8), (16, 16))),
    ]


def run_of(records: list[Record]) -> Run:
    words = {"command": "afftool bench", "started": "now", "environment": ENVIRONMENT, "baseline": "original"}
    return Run(id=1, records=tuple(records), **words)


def test_what_the_network_takes_longer_stands_beside_the_sum_of_the_bare_fusions() -> None:
    table = cost_in_context(in_context())
    assert table is not None
    eager, compiled = table.named_rows()
    times = ("added_ms", "alone_ms", "replaced_ms", "saved_ms")
    assert [eager[name] for name in times] == [4.0 * 0.5, 4 * 1.0, 3 * 0.25, 4 - 0.75 - 2.0]
    assert eager["interval"] == "1.00 ms to 4.00 ms"
    assert [compiled[name] for name in times] == [0.5, 4 * 0.5, 3 * 0.25, 2 - 0.75 - 0.5]
    assert compiled["interval"] is None  # no rounds were shared
    assert [eager[name] for name in ("sites", "added_params", "adapter_params", "added_macs")] == [4, 30, 7, 900]


def test_a_sum_that_lacks_a_shape_is_not_told() -> None:
    records = [r for r in in_context() if not (r.fusion == "aff" and r.channels == 16)]
    table = cost_in_context(records)
    assert table is not None
    assert {column.name for column in table.columns}.isdisjoint({"alone_ms", "saved_ms"})


def test_without_the_original_nothing_is_said_of_the_context() -> None:
    assert cost_in_context([r for r in in_context() if r.fusion != "original"]) is None


def test_places_that_a_stranger_made_up_are_passed_over() -> None:
    strange = grafted("aff", 6.5, fused_at={"no place": 3})
    assert cost_in_context([grafted("original", 4.0), strange]) is None


def test_bare_fusions_have_a_table_of_their_own_and_the_results_are_of_the_network_alone() -> None:
    run = run_of(in_context())
    assert {row["backend"]: row["fusion"] for row in compact_table(run).named_rows()} == {
        "eager": "aff",
        "compile": "aff",
    }
    beside = alone_table(run.records)
    assert beside is not None
    assert [row["sites"] for row in beside.named_rows()][:5] == ["2", "1", "2", "1", "1"]
    report = bench_report(run)
    assert [table.title for table in report.tables][:3] == ["Results", "Cost in context", beside.title]
    assert len(report.data) == len(run.records)
    assert [row["saved_ms"] for row in report.document["in_context"]] == [1.25, 0.75]


def test_the_bench_measures_both_and_the_report_of_the_stored_run_says_the_same(net, monkeypatch, capsys) -> None:
    quick = (
        "--backend",
        "eager",
        "--measure",
        "cost,latency",
        "--isolate",
        "none",
        "--allocator",
        "kept",
        "--budget",
        "1",
    )
    words = ("--host", f"graft:{net}:Net:at=add:stage=2", "--fusion", "aff", "--size", "16", "--batch", "2")
    assert afftool(monkeypatch, "bench", *words, *quick, "--precision", "0.9") == 0
    said = capsys.readouterr()
    assert "measuring the bare fusions at the 1 shape of its sites too" in said.err
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        rows = store.run("latest").records
    assert [(r.fusion, r.host == "module", r.channels) for r in rows] == [
        ("original", False, None),
        ("aff", False, None),
        ("add", True, 16),
        ("aff", True, 16),
    ]
    assert "Cost in context" in said.out
    assert afftool(monkeypatch, "report", "latest") == 0
    assert "## Cost in context" in capsys.readouterr().out


@pytest.mark.long
def test_the_bare_fusions_are_left_out_where_that_is_asked_and_where_no_time_is(net, monkeypatch, capsys) -> None:
    words = ("bench", "--host", f"graft:{net}:Net", "--fusion", "aff", "--size", "16", "--measure", "cost")
    assert afftool(monkeypatch, *words) == 0
    timed = ("--backend", "eager", "--isolate", "none", "--allocator", "kept", "--precision", "0.9", "--no-alone")
    assert afftool(monkeypatch, *words[:-2], "--measure", "latency", *timed) == 0
    assert "bare fusions" not in capsys.readouterr().err
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        assert {record.host for record in store.run("latest").records} == {f"graft:{net}:Net"}
