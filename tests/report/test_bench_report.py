from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from made_up_runs import ENVIRONMENT, bench_run, record, timed

from afftool.errors import SpecError
from afftool.formats import renderer
from afftool.record import Record, Run
from afftool.report import Table, bench_report, comparison, frame
from afftool.report.bench import compact_table
from afftool.report.breakdown import causes_table, saved_table
from afftool.report.caveats import caveats
from afftool.report.columns import alike
from afftool.report.lines import one_line, setting_line


def run_of(*records: Record, baseline: str | None = "add", number: int = 1) -> Run:
    return Run(
        id=number, command="afftool bench", started="now", environment=ENVIRONMENT, baseline=baseline, records=records
    )


def table(run: Run, title: str) -> Table:
    return next(t for t in bench_report(run).tables if t.title == title)


def best(table: Table, name: str) -> list[int]:
    return sorted(row for row, column in table.best if column == name)


def test_it_opens_with_what_was_compared_where_and_how() -> None:
    facts = dict(bench_report(bench_run()).facts)
    assert facts["Compared"] == "add, aff, iaff; the baseline is add"
    assert "Some CPU, 2 of 2 cores used" in facts["Machine"]
    assert "torch 2.13.0" in facts["Software"]
    assert "channels 64; size 56x56; batch 8; mode infer" in facts["How"]
    assert "run 7" in facts["Run"]


def test_what_is_read_of_a_step_is_shown_and_what_bounds_it_in_a_terminal_too() -> None:
    fields = {
        "outliers": 2, "warmup_s": 0.5, "page_faults": 12.0, "guards": 12, "reserved_bytes": 4096,
        "gradient_bytes": 1024, "optimizer_bytes": 2048, "bound": "memory", "least_ms": 0.5, "least_share": 0.25,
        "requested_bytes": 4000, "cuda_graphs": 3, "skipped_graphs": 1,
    }  # fmt: skip
    run = run_of(timed("aff", 2.0, **fields), baseline=None)
    results, compact = table(run, "Results"), compact_table(run)
    assert {name: results.values(name)[0] for name in fields} == fields
    assert {"bound", "least_share"} <= {c.name for c in compact.columns}
    assert "least_ms" not in {c.name for c in compact.columns}


def test_values_stay_exact() -> None:
    assert 1 / 3 in table(bench_run(), "Results").values("latency_ms")


def test_the_best_of_each_group_is_marked_and_groups_never_mix_backends() -> None:
    results = table(bench_run(), "Results")
    assert list(zip(results.values("fusion"), results.values("backend"), strict=True)) == [
        ("add", "eager"),
        ("aff", "eager"),
        ("iaff", "eager"),
        ("add", "compile"),
        ("aff", "compile"),
    ]
    assert best(results, "latency_ms") == [0, 3]


def test_more_is_better_for_throughput() -> None:
    run = run_of(timed("aff", 1.0, throughput_per_s=10.0), timed("iaff", 2.0, throughput_per_s=5.0), baseline=None)
    assert best(table(run, "Results"), "throughput_per_s") == [0]


def test_nothing_is_best_where_all_are_alike_and_ties_share_the_mark() -> None:
    alike = run_of(timed("aff", 1.0, params=5), timed("iaff", 1.0, params=5), baseline=None)
    assert table(alike, "Results").best == frozenset()
    tied = run_of(*(timed(f, 1.0, params=n) for f, n in (("aff", 5), ("iaff", 5), ("sk", 6))), baseline=None)
    assert best(table(tied, "Results"), "params") == [0, 1]


def test_what_gives_no_numbers_is_never_best_and_counts_for_nobodys_mark() -> None:
    records = (
        timed("aff", 1.0, nonfinite_share=0.25, params=1),
        timed("add", 2.0, params=5),
        timed("sk", 3.0, params=5),
    )
    results = table(run_of(*records, baseline=None), "Results")
    assert best(results, "latency_ms") == [1]
    assert best(results, "params") == [1, 2]
    assert best(compact_table(run_of(*records, baseline=None)), "latency_ms") == [1]


def test_what_is_not_finite_is_told_once_a_dtype_with_the_rows_and_the_worst_share() -> None:
    records = (
        timed("aff", 1.0, nonfinite_share=1 / 3, dtype="float16"),
        timed("iaff", 1.0, nonfinite_share=0.5, dtype="float16"),
        timed("iaff", 1.0, nonfinite_share=0.0, dtype="float32"),
        timed("sk", 1.0, nonfinite_share=0.001, dtype="float32"),
    )
    run = run_of(*records, baseline=None)
    said = next(t for t in caveats(run) if t.title == "Not finite")
    assert said == table(run, "Not finite")
    assert said.values("values") == ["up to 50%", "up to 0.10%"]
    assert said.values("rows") == ["aff float16 eager, iaff float16 eager", "sk float32 eager"]
    assert "65,504" in said.values("advice")[0]
    assert "division by 0" in said.values("advice")[1]
    assert compact_table(run).values("nonfinite_share") == [1 / 3, 0.5, None, 0.001]
    assert one_line(records[0]).endswith("33% of its values not finite")


def test_nothing_is_said_where_all_is_finite() -> None:
    run = run_of(timed("aff", 1.0, nonfinite_share=0.0, differing_share=0.0), baseline=None)
    assert not caveats(run)
    shown = {column.name for column in (*table(run, "Results").columns, *compact_table(run).columns)}
    assert not shown & {"nonfinite_share", "differing_share"}


def test_costs_are_multiples_of_the_baseline_in_the_same_case_under_the_same_backend() -> None:
    relative = table(bench_run(), "Relative to add")
    assert relative.values("fusion") == ["aff", "iaff", "aff"]
    assert relative.values("latency_ms") == [4.0, 8.0, (1 / 3) / 0.25]
    assert "params" not in [c.name for c in relative.columns]  # the baseline's are 0: no multiple of it exists


def test_the_baseline_is_sought_in_the_same_setting_only() -> None:
    run = run_of(timed("add", 1.0, batch=1), timed("aff", 3.0, batch=2), timed("aff", 5.0, batch=1))
    assert table(run, "Relative to add").values("latency_ms") == [5.0, None]


def test_the_baseline_of_other_dimensions_and_inputs_is_found() -> None:
    run = run_of(
        timed("add:ndim=1", 1.0, height=None),
        timed("aff:ndim=1", 2.0, height=None),
        timed("add:inputs=3", 2.0),
        timed("aff:inputs=3", 6.0),
    )
    assert table(run, "Relative to add").values("latency_ms") == [2.0, 3.0]


def test_a_ratio_measured_round_by_round_is_preferred_to_the_medians() -> None:
    paired = {"baseline": "add", "latency_ratio": 2.5, "latency_ratio_low": 2.4, "latency_ratio_high": 2.6}
    run = run_of(timed("add", 1.0), timed("aff", 3.0, **paired))
    relative = table(run, "Relative to add")
    assert relative.values("latency_ms") == [2.5]
    assert relative.values("latency_ratio_interval") == ["2.40x to 2.60x"]


def test_a_failed_baseline_is_no_baseline() -> None:
    run = run_of(record("add", status="failed", reason="no", latency_ms=1.0), timed("aff", 3.0))
    assert "Relative to add" not in [t.title for t in bench_report(run).tables]


def test_a_fusion_that_is_not_installed_here_is_still_reported() -> None:
    run = run_of(timed("add", 1.0), timed("name-of-a-plugin", 3.0), timed("their.mod:Gate:width=8", 2.0))
    assert table(run, "Relative to add").values("latency_ms") == [3.0, 2.0]


def test_columns_with_nothing_in_them_are_dropped_and_constant_settings_said_once() -> None:
    names = [c.name for c in table(bench_run(), "Results").columns]
    assert "saved_bytes" not in names
    assert "batch" not in names
    swept = run_of(timed("aff", 1.0, batch=1), timed("aff", 2.0, batch=2))
    assert "batch" in [c.name for c in table(swept, "Results").columns]


def test_what_was_not_measured_is_listed_with_its_reason() -> None:
    rest = table(bench_run(), "Not measured")
    assert rest.values("status") == ["failed", "skipped"]
    assert rest.values("reason")[1] == "CUDA graphs need a CUDA device"


def test_uncounted_operators_are_named() -> None:
    run = run_of(record("aff", flops=1, uncounted_ops={"aten.fft": 3}))
    assert "aten.fft" in table(run, "Results").note


def test_uncounted_operators_are_named_on_the_screen_too() -> None:
    run = run_of(record("aff", flops=1, uncounted_ops={"aten.fft": 3}))
    assert "aten.fft" in compact_table(run).note


def test_what_a_measured_row_lacks_is_told_with_the_reason() -> None:
    run = run_of(timed("add", 1.0, reason="no energy: nothing counts it"), timed("aff", 2.0))
    (said,) = caveats(run)
    assert said.rows == (("no energy: nothing counts it", "add eager"),)
    assert table(run, "Measured in part") == said


def test_unsteady_timings_are_listed_with_advice_once_each() -> None:
    noisy = {"instability": {"drift": "let it cool"}}
    run = run_of(timed("add", 1.0, **noisy), timed("aff", 2.0, **noisy), timed("iaff", 2.0))
    unsteady = table(run, "Unsteady timings")
    assert unsteady.rows == (("drift", "let it cool", "add eager, aff eager"),)


def disturbed(kind: str, figure: float) -> dict[str, dict[str, Any]]:
    return {"instability": {kind: f"{figure} of it; stop it"}, "instability_figures": {kind: figure}}


def test_advice_is_a_line_a_kind_with_the_worst_figure_and_the_rows() -> None:
    run = run_of(
        timed("add", 1.0, **disturbed("spread", 0.06)),
        timed("aff", 2.0, **disturbed("spread", 0.3)),
        timed("iaff", 2.0, **disturbed("spread", 0.1)),
        timed("sk", 2.0, **disturbed("drift", 0.02)),
    )
    unsteady = table(run, "Unsteady timings")
    assert unsteady.rows == (
        ("spread", "0.3 of it; stop it", "add eager, aff eager, iaff eager; worst in aff eager"),
        ("drift", "0.02 of it; stop it", "sk eager"),
    )


def test_a_run_of_many_rows_names_some_and_counts_the_others() -> None:
    rows = [timed(f"aff:gain={n}", 2.0, **disturbed("spread", 0.3)) for n in range(9)]
    run = run_of(*rows, timed("iaff", 1.0), baseline=None)
    (row,) = table(run, "Unsteady timings").rows
    assert row[2].endswith("aff:gain=5 eager and 3 more")
    assert [r[2] for r in table(run_of(*rows, baseline=None), "Unsteady timings").rows] == ["all 9"]


BUSY = {"latency_low_ms": 0.518, "latency_high_ms": 58.0, "instability": {"busy machine": "stop them"}}


def wide(fusion: str, latency_ms: float = 4.0, **fields: Any) -> Record:
    return dataclasses.replace(timed(fusion, latency_ms, throughput_per_s=8.0), **BUSY | {"samples": 8} | fields)


def test_a_time_that_nobody_can_use_is_told_as_not_measured_with_what_to_do() -> None:
    run = run_of(timed("add", 9.0, throughput_per_s=2.0), timed("iaff", 10.0), wide("aff"))
    for told in (table(run, "Results"), compact_table(run)):
        assert told.values("latency_ms") == [9.0, 10.0, None]
        assert told.values("latency_interval")[2] == "not measured: the machine was busy"
        assert best(told, "latency_ms") == []  # the third may have been it
    assert best(table(run, "Results"), "throughput_per_s") == []
    (reason, rows) = table(run, "Measured in part").rows[0]
    assert reason.startswith("latency not measured: the machine was busy; 8 timings put the median between 518 µs")
    assert "stop other work" in reason
    assert rows == "aff eager"
    assert "Unsteady timings" not in [t.title for t in bench_report(run).tables]


def test_its_exact_values_stay_in_csv_and_json_and_it_is_best_at_nothing_there() -> None:
    report = bench_report(run_of(timed("add", 9.0), timed("iaff", 10.0), wide("aff")))
    rows = report.data
    assert rows["latency_ms"].tolist() == [9.0, 10.0, 4.0]
    assert rows["best"].tolist()[2] is None
    assert [row["latency_ms"] for row in report.document["records"]] == [9.0, 10.0, 4.0]


def test_a_time_that_nobody_can_use_spoils_no_mark_of_rows_measured_otherwise() -> None:
    run = run_of(timed("aff", 9.0), timed("iaff", 10.0), wide("add", batch=2), baseline=None)
    assert best(table(run, "Results"), "latency_ms") == [0]
    counted = run_of(timed("aff", 9.0, params=2), wide("iaff", params=1), baseline=None)
    assert best(table(counted, "Results"), "params") == [1]


def test_its_ratio_is_told_only_where_the_rounds_they_shared_make_it_tight() -> None:
    ratio = {"baseline": "add", "latency_ratio": 2.0}
    tight = wide("aff", latency_ratio_low=1.9, latency_ratio_high=2.2, **ratio)
    loose = wide("iaff", latency_ratio_low=0.5, latency_ratio_high=9.0, **ratio)
    run = run_of(wide("add", baseline="add", latency_ratio=1.0), tight, loose, wide("sk"))
    relative = table(run, "Relative to add")
    assert relative.values("latency_ms") == [2.0, None, None]
    assert relative.values("latency_ratio_interval") == ["1.90x to 2.20x", None, None]


@pytest.mark.parametrize(
    ("high_ms", "usable"),
    [(4.0, True), (9.9, True), (10.1, False), (1000.0, False)],
)
def test_an_interval_is_usable_within_one_order_of_magnitude(high_ms: float, usable: bool) -> None:
    told = table(run_of(wide("aff", latency_low_ms=1.0, latency_high_ms=high_ms)), "Results")
    assert told.values("latency_interval")[0].startswith("not measured") is not usable


@pytest.mark.parametrize(
    ("samples_ms", "usable"),
    [
        ((0.5, 60.0), False),
        ((0.5, 0.6), True),
        ((1.0, 1.1, 1.0, 1.1, 60.0), True),
        ((1.0, 1.1, 60.0, 60.0, 2.0), False),
    ],
)
def test_samples_too_few_for_an_interval_are_judged_by_how_far_they_lie_apart(
    samples_ms: tuple[float, ...], usable: bool
) -> None:
    few = wide("aff", latency_low_ms=None, latency_high_ms=None, samples=len(samples_ms), samples_ms=samples_ms)
    assert ("not measured" in one_line(few)) is not usable


@pytest.mark.parametrize("name", ["md", "html"])
def test_files_for_people_do_not_print_it_either(name: str) -> None:
    text = renderer(name)(bench_report(run_of(timed("add", 9.0), timed("iaff", 10.0), wide("aff", 4.25))))
    assert "not measured: the machine was busy" in text
    assert "4.25" not in text


def test_where_nothing_else_ran_the_step_itself_may_be_what_jumps() -> None:
    told = table(run_of(wide("aff", instability={"spread": "a lot"})), "Results")
    assert "or the time of a step jumps by itself" in told.values("latency_interval")[0]


def test_two_runs_are_not_compared_by_a_time_that_nobody_can_use() -> None:
    compared = comparison([run_of(timed("aff", 2.0), number=1), run_of(wide("aff"), number=2)])
    latency = next(t for t in compared.tables if t.title == "latency")
    assert latency.rows == (("aff", "eager", 2.0),)
    assert latency.columns[-1].name == "latency_ms_run_1"


def test_a_row_as_it_comes_says_only_what_the_rows_above_it_do_not_share() -> None:
    small, large = (timed("aff", 2.0, channels=channels) for channels in (32, 64))
    shared = alike([small, large])
    assert (
        setting_line(shared)
        == "host module, size 56x56, batch 8, mode infer, device cpu, dtype float32, memory format contiguous"
    )
    assert one_line(large, shared) == "aff eager (channels 64): 2.00 ms [1.96 ms to 2.06 ms]"
    assert one_line(large, alike([large])).startswith("aff eager: ")
    assert "batch 2" in one_line(dataclasses.replace(large, batch=2), shared)


def test_a_row_as_it_comes_says_that_its_timings_are_too_few() -> None:
    few = dataclasses.replace(timed("aff", 2.0), latency_low_ms=None, latency_high_ms=None, samples=2)
    assert one_line(few, alike([few])) == "aff eager: 2.00 ms (2 timings, too few for an interval)"


def test_a_row_as_it_comes_does_not_print_a_time_that_nobody_can_use() -> None:
    line = one_line(wide("aff", params=5), alike([wide("aff")]))
    assert line.startswith("aff eager: not measured: the machine was busy (8 timings put the median between 518 µs")
    assert line.endswith("and 58.0 ms), 5 params")
    assert "4.00 ms" not in line


def test_a_run_with_no_record_still_has_a_report() -> None:
    report = bench_report(run_of())
    assert report.tables == ()
    assert report.document["records"] == []


def test_the_compact_table_ends_with_the_ratio_to_the_baseline() -> None:
    compact = compact_table(bench_run())
    assert compact.columns[-1].heading == "latency vs add"
    assert compact.values("latency_ms_vs_baseline") == [1.0, 4.0, 8.0, 1.0, (1 / 3) / 0.25]


def test_the_document_has_exactly_the_stored_fields_and_null_where_there_is_none() -> None:
    run = run_of(timed("aff", 1 / 3, error_vs_eager=float("inf"), samples_ms=(1.0,)))
    document = json.loads(renderer("json")(bench_report(run)))
    assert set(document) == {"schema", "environment", "records"}
    (row,) = document["records"]
    assert set(row) == {f.name for f in dataclasses.fields(Record)} - {"samples_ms"}
    assert (row["latency_ms"], row["peak_bytes"], row["error_vs_eager"]) == (1 / 3, None, None)


def test_a_frame_keeps_whole_numbers_whole() -> None:
    rows = frame([record(params=2**53 + 1), record()])
    assert int(rows["params"][0]) == 2**53 + 1
    assert rows["params"].isna().tolist() == [False, True]


def test_a_frame_tells_what_is_no_number_from_what_is_missing() -> None:
    errors = frame([record(error_vs_eager=float("nan")), record()])["error_vs_eager"]
    assert errors.isna().tolist() == [False, True]


def test_the_exact_rows_are_as_they_were_stored() -> None:
    large = 2**60 + 1
    run = run_of(
        timed("add", 0.1, params=3, peak_bytes=large),
        timed("aff", 1 / 3, params=None, peak_bytes=large - 1, uncounted_ops={"b": 1, "a": 2}),
        record("aff", status="failed", reason="no", latency_ms=9.0),
    )
    rows = bench_report(run).data
    assert rows["peak_bytes"].tolist()[:2] == [large, large - 1]
    assert rows["params"].isna().tolist() == [False, True, True]
    assert rows["uncounted_ops"].tolist() == [None, '{"a": 2, "b": 1}', None]
    assert rows["latency_ms_vs_baseline"].tolist()[:2] == [1.0, (1 / 3) / 0.1]
    assert rows["best"].tolist() == ["latency_ms", "peak_bytes", None]


def test_a_setting_that_nobody_has_is_alike() -> None:
    run = run_of(timed("add", 1.0, channels=None, height=None, width=None, backend=None), record("aff"),
                 timed("aff", 3.0, channels=None, height=None, width=None, backend=None))  # fmt: skip
    assert [ratio for ratio in table(run, "Relative to add").values("latency_ms") if ratio] == [3.0]
    assert bench_report(run).data["best"].tolist().count("latency_ms") == 1


def test_runs_are_compared_case_by_case_with_ratios_to_the_first() -> None:
    before = run_of(timed("add", 1.0), timed("aff", 2.0), timed("sk", 1.0), number=1)
    after = run_of(timed("add", 1.5), timed("aff", 2.0), timed("iaff", 9.0), number=2)
    report = comparison([before, after])
    latency = next(t for t in report.tables if t.title == "latency")
    assert latency.rows == (("add", "eager", 1.0, 1.5, 1.5), ("aff", "eager", 2.0, 2.0, 1.0))
    missing = next(t for t in report.tables if t.title == "Not in every run")
    assert missing.values("fusion") == ["sk", "iaff"]
    assert missing.values("missing") == ["run 2", "run 1"]
    assert report.data["run"].tolist() == [1, 1, 1, 2, 2, 2]


def test_comparing_runs_of_different_machines_warns_about_times() -> None:
    here = run_of(timed("add", 1.0), number=1)
    there = dataclasses.replace(here, id=2, environment=dataclasses.replace(ENVIRONMENT, cpu="Another CPU"))
    assert "Beware" in dict(comparison([here, there]).facts)
    assert "Beware" not in dict(comparison([here, dataclasses.replace(here, id=2)]).facts)


def test_a_comparison_needs_two_runs() -> None:
    with pytest.raises(SpecError):
        comparison([run_of()])


PARTS = {"parameters": 100, "inputs": 200, "input gradients": 50, "workspace": 30}


def test_a_report_takes_apart_the_peaks_that_are_known() -> None:
    run = bench_run()
    first, *rest = run.records
    known = dataclasses.replace(first, status="ok", peak_bytes=380, peak_parts_bytes=PARTS)
    report = bench_report(dataclasses.replace(run, records=(known, *rest)))
    (by_cause,) = [t for t in report.tables if t.title == "Memory at the peak, by cause"]
    (values,) = by_cause.named_rows()
    assert values["peak_bytes"] == 380 == sum(values[f"{cause.replace(' ', '_')}_bytes"] for cause in PARTS)
    assert list(values)[-1] == "workspace_bytes"


def test_without_a_known_cause_there_is_no_table() -> None:
    assert causes_table(bench_run().records, ()) is None


def test_what_modules_save_adds_up_and_the_fusion_itself_has_its_name() -> None:
    saved = saved_table("aff (module, 8 channels)", {"local_att.0": 30, "": 10})
    assert saved.rows == (("local_att.0", 30, 0.75), ("aff itself", 10, 0.25), ("total", 40, 1.0))


def test_a_fusion_that_saves_nothing_saves_zero_in_all() -> None:
    assert saved_table("add", {}).rows == (("total", 0, None),)


def test_what_nothing_was_counted_of_is_no_multiple_of_anything() -> None:
    known = record("add", params=0, flops=100, macs=10)
    unknown = record("mine", params=0, flops=0, macs=0, uncounted_ops={"my.op": 1})
    in_part = record("other", params=0, flops=50, macs=0, uncounted_ops={"my.op": 1})
    relative = table(run_of(known, unknown, in_part), "Relative to add")
    assert relative.values("flops") == [None, 0.5]
