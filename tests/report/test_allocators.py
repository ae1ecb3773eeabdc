"""The same rows under the C library's allocator and with freed memory kept, side by side or across runs."""

import dataclasses
from typing import Any

from made_up_runs import ENVIRONMENT, record

from afftool.allocator import TO_KEEP
from afftool.record import Record, Run
from afftool.report import bench_report
from afftool.report.bench import compact_table
from afftool.report.caveats import caveats
from afftool.report.comparison import comparison
from afftool.report.usable import as_told, unusable
from afftool.tables import Report, Table


def run_of(*records: Record, baseline: str | None = None, id: int = 1) -> Run:
    return Run(
        id=id, command="afftool bench", started="now", environment=ENVIRONMENT, baseline=baseline, records=records
    )


def row(fusion: str, allocator: str, ms: float, **fields: Any) -> Record:
    return record(
        fusion=fusion, backend="eager", allocator=allocator, latency_ms=ms, latency_low_ms=ms, latency_high_ms=ms,
        samples=40, params=8, **fields,
    )  # fmt: skip


def table_of(report: Report, title: str) -> Table | None:
    return next((table for table in report.tables if table.title == title), None)


def test_a_regime_that_is_faster_stands_beside_with_the_factor_and_what_to_set() -> None:
    run = run_of(row("aff", "system", 23.0, page_faults=5000.0), row("aff", "kept", 10.0, page_faults=0.0))
    assert compact_table(run).values("allocator") == ["system", "kept"]
    (freed,) = (table for table in caveats(run) if table.title == "Freed memory")
    assert freed.rows == (("2.30x faster with freed memory kept (5.00 k page faults a step without)", "aff eager"),)
    assert TO_KEEP in freed.note
    assert "MALLOC_TRIM_THRESHOLD_" in TO_KEEP
    assert table_of(bench_report(run), "Freed memory") == freed


def test_a_regime_that_takes_as_long_is_in_the_data_and_in_no_table() -> None:
    run = run_of(row("aff", "system", 10.5), row("aff", "kept", 10.0))
    report = bench_report(run)
    results = table_of(report, "Results")
    assert results is not None
    assert results.values("latency_ms") == [10.5]
    assert table_of(report, "Freed memory") is None
    assert list(report.data["allocator"]) == ["system", "kept"]
    assert "1 rows take within 10%" in dict(report.facts)["Freed memory"]


def test_rows_of_different_regimes_are_never_compared() -> None:
    run = run_of(row("add", "kept", 1.0), row("aff", "system", 23.0), baseline="add")
    relative = table_of(bench_report(run), "Relative to add")
    assert relative is None or "latency_ms" not in [column.name for column in relative.columns]
    assert not [name for _, name in compact_table(run).best if name == "latency_ms"]


def test_many_page_faults_are_worth_a_word_where_only_the_system_s_regime_was_measured() -> None:
    many, few = row("aff", "system", 10.0, page_faults=8000.0), row("se", "system", 10.0, page_faults=100.0)
    (freed,) = (table for table in caveats(run_of(many, few)) if table.title == "Freed memory")
    assert freed.rows == (("8.00 k page faults a step; --allocator both tells what they cost", "aff eager"),)


def test_groups_of_processes_are_shown_with_their_shares() -> None:
    grouped = row(
        "aff", "system", 12.3, processes=3, isolation="process", fast_group_ms=12.3, slow_group_ms=30.0,
        slow_group_share=1 / 3,
    )  # fmt: skip
    run = run_of(grouped)
    assert compact_table(run).values("latency_groups") == ["12.3 ms in 2 of 3, 30.0 ms in 1"]
    said = dict(bench_report(run).facts)["Freed memory"]
    assert said == "as the C library's allocator likes, in 3 fresh processes a row"


def test_two_groups_are_told_where_the_interval_of_their_mixture_says_nothing() -> None:
    known: dict[str, Any] = {"latency_high_ms": 39.0, "processes": 3, "isolation": "process"}
    known |= {"latency_ratio": 8.0, "latency_ratio_low": 0.5, "latency_ratio_high": 90.0, "baseline": "add"}
    grouped = record(
        fusion="sk", backend="eager", allocator="system", latency_ms=4.1, latency_low_ms=0.43, samples=40,
        fast_group_ms=2.43, slow_group_ms=11.7, slow_group_share=1 / 3, **known,
    )  # fmt: skip
    assert unusable(grouped) is None
    assert as_told(grouped) == grouped, "its ratio has an interval that says how little is known"
    alone = dataclasses.replace(grouped, fast_group_ms=None, slow_group_ms=None, slow_group_share=None)
    assert unusable(alone) == "the machine was busy, or the time of a step jumps by itself"
    assert as_told(alone).latency_ratio is None
    steady = dataclasses.replace(alone, latency_low_ms=4.0, latency_high_ms=4.2)
    assert as_told(steady) == steady, "it was the baseline's processes that differ"
    assert as_told(dataclasses.replace(steady, processes=1)).latency_ratio is None
    busy = dataclasses.replace(grouped, slow_group_ms=60.0, instability={"busy machine": "stop other work"})
    assert unusable(busy) == "the machine was busy"


def compared(*runs: Run) -> Report:
    return comparison(runs)


def test_a_run_with_memory_kept_and_one_without_are_compared_in_everything_but_times() -> None:
    old, new = run_of(row("aff", "kept", 10.0), id=1), run_of(row("aff", "system", 23.0), id=2)
    report = compared(old, new)
    assert [table.title for table in report.tables] == ["params"]
    assert dict(report.facts)["Freed memory"] == (
        "run 1: kept; run 2: system; times under different allocators are not compared"
    )


def test_runs_are_compared_in_the_regimes_that_they_share() -> None:
    both = run_of(row("aff", "system", 23.0), row("aff", "kept", 10.0), id=1)
    kept = run_of(row("aff", "kept", 11.0), id=2)
    latency = table_of(compared(both, kept), "latency")
    assert latency is not None
    assert latency.values("latency_ms_ratio_2") == [1.1]


def test_what_was_only_counted_is_compared_with_what_was_timed() -> None:
    counted = run_of(record(fusion="aff", backend="eager", params=9), id=1)
    report = compared(counted, run_of(row("aff", "system", 2.0), id=2))
    params = table_of(report, "params")
    assert params is not None
    assert params.values("params_ratio_2") == [8 / 9]
