"""Memory in a report: by cause and by module, from records alone."""

import dataclasses

from made_up_runs import bench_run

from afftool.report import bench_report
from afftool.report.breakdown import causes_table, saved_table

PARTS = {"parameters": 100, "inputs": 200, "input gradients": 50, "workspace": 30}


def test_a_report_takes_apart_the_peaks_that_are_known() -> None:
    run = bench_run()
    first, *rest = run.records
    known = dataclasses.replace(first, status="ok", peak_bytes=380, peak_parts_bytes=PARTS)
    report = bench_report(dataclasses.replace(run, records=(known, *rest)))
    (table,) = [table for table in report.tables if table.title == "Memory at the peak, by cause"]
    (values,) = table.named_rows()
    assert values["peak_bytes"] == 380 == sum(values[f"{cause.replace(' ', '_')}_bytes"] for cause in PARTS)
    assert list(values)[-1] == "workspace_bytes"


def test_without_a_known_cause_there_is_no_table() -> None:
    assert causes_table(bench_run().records, ()) is None


def test_what_modules_save_adds_up_and_the_fusion_itself_has_its_name() -> None:
    table = saved_table("aff (module, 8 channels)", {"local_att.0": 30, "": 10})
    assert table.rows == (("local_att.0", 30, 0.75), ("aff itself", 10, 0.25), ("total", 40, 1.0))


def test_a_fusion_that_saves_nothing_saves_zero_in_all() -> None:
    assert saved_table("add", {}).rows == (("total", 0, None),)
