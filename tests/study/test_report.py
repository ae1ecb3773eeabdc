"""What a report says of cells, and what it refuses to say."""

import dataclasses
from typing import Any

import pytest
from made_up_studies import HERE, made

from afftool import catalog
from afftool.record import Environment, Record
from afftool.spec import HostSpec
from afftool.study import published
from afftool.study.cells import CellRecord, StoredPlan
from afftool.study.grids import study
from afftool.study.report import study_report
from afftool.study.results import benched, results
from afftool.study.spec import StudySpec
from afftool.study.stored import finished, latest


def report_of(spec: StudySpec, score: Any, **words: Any):  # type: ignore[no-untyped-def]
    plan, known = made(spec, score)
    return study_report(results(plan, known, **words), HERE)


def rising(name: str, seed: int) -> float:
    """Clear differences: aff over local-local over global-global, by about five points each."""
    return {"global-global": 0.6, "local-local": 0.65, "aff": 0.7}[name] + 0.002 * seed + 0.0007 * (seed * 7 % 5)


def table(report: Any, title: str) -> list[dict[str, Any]]:
    found = next(t for t in report.tables if t.title.startswith(title))
    return found.named_rows()


def test_clear_differences_are_claimed_and_the_order_agrees_with_the_paper() -> None:
    report = report_of(study("scale"), rising)
    assert [row["claim"] for row in table(report, "Differences")] == ["better", "better"]
    assert any("aff is better than global-global here" in note for note in report.notes)
    beside = next(t for t in report.tables if t.title.startswith("Beside the paper"))
    assert beside.values("published") == [0.754, 0.754, 0.763]
    assert "Different data" in beside.note
    assert "too few variants to rank" in beside.note


def test_five_seeds_are_told_that_they_cannot_claim_anything() -> None:
    report = report_of(dataclasses.replace(study("scale"), seeds=tuple(range(5))), rising)
    assert {row["claim"] for row in table(report, "Differences")} == {"cannot tell"}
    assert any("With 5 seeds no difference can be claimed, however large" in note for note in report.notes)
    assert table(report, "Differences")[0]["low"] is None  # there is no interval of 95%
    scores = next(t for t in report.tables if t.title == "Scores")
    assert [column.heading for column in scores.columns][3:5] == ["lowest", "highest"]
    assert "no 95% interval" in scores.note


def test_six_seeds_can_claim_however_many_comparisons_there_are() -> None:
    report = report_of(dataclasses.replace(study("scale"), seeds=tuple(range(6))), rising)
    assert [row["claim"] for row in table(report, "Differences")] == ["better", "better"]
    assert "6 seeds, 2 comparisons: a difference of" in dict(report.facts)["power"]


def test_a_margin_makes_the_same_a_claim_beside_cannot_tell() -> None:
    def alike(name: str, seed: int) -> float:
        return 0.7 + 0.0005 * (seed * {"global-global": 3, "local-local": 1, "aff": 4}[name] % 5 - 2)

    reports = [report_of(study("scale"), alike, margin=margin) for margin in (None, 0.0002, 0.01)]
    claims = [{row["claim"] for row in table(report, "Differences")} for report in reports]
    assert claims == [{"cannot tell"}, {"cannot tell"}, {"the same"}]
    assert "aff and global-global are no more than 1.00 points apart here." in reports[2].notes


def test_a_difference_smaller_than_the_margin_is_better_and_no_more_than_it() -> None:
    report = report_of(study("scale"), rising, margin=0.12)
    assert any(note.startswith("aff is better") and "no more than 12.00 points" in note for note in report.notes)


def test_nothing_is_claimed_while_planned_cells_are_missing() -> None:
    plan, known = made(study("scale"), rising)
    known.popitem()
    report = study_report(results(plan, known), HERE)
    assert {(row["claim"], row["p"], row["low"]) for row in table(report, "Differences")} == {
        ("cannot tell", None, None)
    }
    assert any("1 of 21 planned cells are missing: nothing is claimed yet" in note for note in report.notes)
    assert {variant["dominated_by"] for variant in report.document["variants"].values()} == {None}


def planned_first(*seeds: int) -> list[StoredPlan]:
    """The plans of earlier runs of `scale`, with so many seeds each."""
    return [made(dataclasses.replace(study("scale"), seeds=tuple(range(n))), rising)[0] for n in seeds]


def test_added_seeds_are_a_further_look_and_the_rule_is_printed() -> None:
    spec = dataclasses.replace(study("scale"), seeds=tuple(range(9)))
    report = report_of(spec, rising, earlier=planned_first(6, 6, 8))
    assert "6 seeds planned, 2 and 1 added" in dict(report.facts)["looks"]
    assert report.document["looks"] == [list(range(n)) for n in (6, 8, 9)]
    assert [row["claim"] for row in table(report, "Differences")] == ["better", "better"]
    assert "looks" not in dict(report_of(spec, rising).facts)


def test_added_seeds_have_to_show_more_than_planned_ones() -> None:
    """What ten seeds show is claimed of ten that were planned, and not of six to which four were added."""
    late = (-2, 11, 9, 13, 10, 3, 12, -6, 8, 12)

    def score(name: str, seed: int) -> float:
        return 0.6 + 0.001 * (late[seed] * (name == "aff") + 0.1 * (seed * len(name) % 5))

    spec = dataclasses.replace(study("scale"), seeds=tuple(range(10)))
    alone, added = (report_of(spec, score, earlier=earlier) for earlier in ([], planned_first(6, 8)))
    claims = [[c["claim"] for c in report.document["comparisons"]][1] for report in (alone, added)]
    assert claims == ["better", "cannot tell"]


def test_fewer_seeds_than_were_planned_claim_nothing() -> None:
    report = report_of(study("scale"), rising, earlier=planned_first(8))
    assert {row["claim"] for row in table(report, "Differences")} == {"cannot tell"}
    assert any("8 seeds were planned first, and these are fewer" in note for note in report.notes)


def test_another_study_in_the_store_is_no_look_at_this_one() -> None:
    (other,) = planned_first(6)
    other = dataclasses.replace(other, cells=tuple((name, seed, f"other {cell}") for name, seed, cell in other.cells))
    assert "looks" not in dict(report_of(study("scale"), rising, earlier=[other]).facts)


def test_collapsed_runs_are_named_set_apart_and_held_against_their_variant() -> None:
    def falls(*fallen: tuple[str, int]) -> Any:
        return report_of(study("scale"), lambda name, seed: 0.1 if (name, seed) in fallen else rising(name, seed))

    report = falls(("aff", 3))
    (note,) = [note for note in report.notes if note.startswith("Collapsed")]
    assert "aff at seed 3 (10.00%)" in note
    assert "aff against global-global" in note
    assert [row["claim"] for row in table(report, "Differences")] == ["better", "cannot tell"]
    assert any("more runs of aff (1) collapsed than of global-global (0)" in note for note in report.notes)
    report = falls(("global-global", 3))
    assert [row["claim"] for row in table(report, "Differences")] == ["better", "better"]
    assert table(report, "Differences")[1]["typical"] == pytest.approx(0.1, abs=0.01)


def test_claims_say_how_many_collapses_may_be_unseen() -> None:
    assert any("up to 35% of a variant's runs may" in note for note in report_of(study("scale"), rising).notes)


def test_all_pairs_are_compared_on_request() -> None:
    report = report_of(study("scale"), rising, pairs=True)
    assert len(table(report, "Differences")) == 3


def test_the_csv_holds_every_pair_once_and_the_baselines_in_the_usual_columns() -> None:
    spec = study("joining")
    plan, known = made(spec, lambda name, seed: 0.5 + 0.01 * len(name) + 0.001 * (seed * len(name) % 5))
    alone, paired = (study_report(results(plan, known, pairs=pairs), HERE) for pairs in (False, True))
    columns = [list(report.data.columns) for report in (alone, paired)]
    assert columns[1][: len(columns[0])] == columns[0]
    rows = {row["variant"]: row for row in paired.data.to_dict("records")}
    assert [name for name, row in rows.items() if row["against"] is None] == ["aff"]
    for row in rows.values():
        filled = {row[name] is None for name in ("difference", "difference_low", "p_corrected", "claim")}
        assert filled == {row["variant"] == "aff"}
    found = set()
    for c in paired.document["comparisons"]:
        end = "" if c["against"] == "aff" else f"_vs_{c['against']}"
        row = rows[c["variant"]]
        assert (row[f"difference{end}"], row[f"difference_high{end}"]) == (c["difference"], c["high"])
        assert (row[f"p_corrected{end}"], row[f"claim{end}"]) == (c["p_corrected"], c["claim"])
        found |= {(c["variant"], f"difference{end}")}
    told = {(n, key) for n, row in rows.items() for key, v in row.items() if "difference" in key and v is not None}
    assert {(name, key) for name, key in told if "low" not in key and "high" not in key} == found
    assert len(found) == 10


def test_failed_cells_are_counted_and_their_reason_is_shown() -> None:
    report = report_of(study("scale"), lambda name, seed: None if (name, seed) == ("aff", 2) else rising(name, seed))
    row = table(report, "Scores")[2]
    assert (row["seeds"], row["failed"], row["note"]) == (6, 1, "diverged: the loss became nan at step 7")
    assert any("flatters" in note for note in report.notes)
    assert any("a failed run counts as the lowest" in note for note in report.notes)
    assert report.document["comparisons"][1]["failed"] == 1


def test_what_had_to_be_assumed_about_the_data_is_among_the_notes() -> None:
    plan, known = made(study("scale"), rising)
    assumed = "255 in the masks is taken as void."
    assert assumed in study_report(results(dataclasses.replace(plan, note=assumed), known), HERE).notes
    assert assumed not in study_report(results(plan, known), HERE).notes  # as plans stored before have none


def test_cells_of_different_gpus_are_not_mixed_without_a_word() -> None:
    plan, known = made(study("scale"), rising)
    on_one = {identity: dataclasses.replace(cell, gpu="NVIDIA H200") for identity, cell in known.items()}
    first, word = next(iter(on_one)), "different GPUs (1 on NVIDIA A100 and 20 on NVIDIA H200)"
    mixed = on_one | {first: dataclasses.replace(on_one[first], gpu="NVIDIA A100")}
    reports = [study_report(results(plan, cells), HERE) for cells in (known, on_one, mixed)]
    assert [any(word in note for note in report.notes) for report in reports] == [False, False, True]
    told = [dict(report.facts)["trained with"].partition(",")[0] for report in reports]
    assert told == ["cpu", "cpu on NVIDIA H200", "cpu on NVIDIA A100 and NVIDIA H200"]
    assert {cell["gpu"] for cell in reports[2].document["cells"]} == {"NVIDIA H200", "NVIDIA A100"}


def test_missing_cells_are_said_to_be_missing() -> None:
    plan, known = made(study("scale"), rising)
    known.popitem()
    report = study_report(results(plan, known), HERE)
    assert dict(report.facts)["cells"] == "20 of 21 done, 1 missing"


def test_equal_cost_and_a_score_that_is_lower_for_certain_is_dominated() -> None:
    report = report_of(dataclasses.replace(study("scale"), seeds=tuple(range(8))), rising)
    rows = table(report, "Cost beside score")
    assert [row["dominated_by"] for row in rows] == ["aff", "aff", None]
    assert [row["on_front"] for row in rows] == [0, 0, 1]
    assert report.data["dominated_by"].tolist() == ["aff", "aff", None]
    assert [variant["on_front"] for variant in report.document["variants"].values()] == [0, 0, 1]


def test_a_difference_that_luck_can_make_dominates_nobody_and_the_front_says_so() -> None:
    report = report_of(study("scale"), lambda name, seed: 0.6 + 0.01 * (seed * len(name) % 5))
    rows = table(report, "Cost beside score")
    assert not any("dominated_by" in row for row in rows)
    assert all(0 < row["on_front"] < 1 for row in rows)


def test_below_six_seeds_no_front_is_drawn() -> None:
    report = report_of(dataclasses.replace(study("scale"), seeds=tuple(range(5))), rising)
    (cost,) = [t for t in report.tables if t.title == "Cost beside score"]
    assert "on_front" not in [column.name for column in cost.columns]
    assert "from 6 seeds on" in cost.note


def test_the_order_of_five_variants_and_the_papers_is_told_with_its_p() -> None:
    found = {"add": 0.1, "concat": 0.2, "ms-gau": 0.5, "ms-se": 0.4, "ms-sa": 0.3, "aff": 0.45, "iaff": 0.9}
    report = report_of(study("integration"), lambda name, seed: found[name])
    beside = next(t for t in report.tables if t.title.startswith("Beside the paper"))
    assert "Kendall's tau = +0.90 over 7 variants, p = 0.0028" in beside.note


def test_the_signal_is_shown_where_the_study_is_about_it() -> None:
    rows = table(report_of(study("gain"), lambda *_: 0.5), "The signal at initialisation")
    assert [row["growth"] for row in rows] == [2.0, 2.0]


def test_latencies_benched_alike_are_set_beside_the_scores() -> None:
    def timed(fusion: str, ms: float, **fields: Any) -> tuple[Environment, Record]:
        return HERE, Record(fusion=fusion, host="resnet:b=1", backend="eager", latency_ms=ms, **fields)

    variants = {"mine": ("aff", "resnet:b=1:classes=10"), "other": ("add", "resnet:b=1:classes=10")}
    records = [timed("aff", 2.0), timed("add", 1.0), timed("aff", 9.0, batch=64), timed("iaff", 5.0)]
    found = benched(variants, records)
    assert {name: value.latency_ms for name, value in found.items()} == {"mine": 2.0, "other": 1.0}
    assert "batch 1" in found["mine"].how
    assert benched(variants, []) == {}


def test_the_published_tables_cover_their_studies() -> None:
    for name in catalog.STUDIES:
        spec = study(name)
        if spec.published:
            for variant in spec.variants:
                host = HostSpec.parse("resnet:b=2") if name != "depth" else spec.host_of(variant)
                if (variant.name, dict(host.options)["b"]) != ("iaff b=4", 4):
                    assert published.score(spec.published, variant.name, host) is not None


def test_the_last_record_of_a_cell_counts_and_lost_workers_do_not() -> None:
    plan, known = made(dataclasses.replace(study("scale"), seeds=(0,)), rising)
    first = next(iter(known.values()))
    later = dataclasses.replace(first, accuracy=0.9)
    lost = dataclasses.replace(first, identity="x", accuracy=None, status="failed", reason="its worker died")
    stored = finished([plan, first, later, lost])
    assert stored.keys() == {first.identity}
    assert stored[first.identity].accuracy == pytest.approx(0.9)


def test_a_cell_that_was_lost_shows_with_its_reason_and_is_not_counted_as_done() -> None:
    spec = dataclasses.replace(study("scale"), seeds=tuple(range(7)))
    plan, known = made(spec, rising)
    identity = next(i for name, seed, i in plan.cells if (name, seed) == ("aff", 2))
    lost = CellRecord(cell=known[identity].cell, identity=identity, status="failed", reason="its worker died")
    trained = known.pop(identity)
    report = study_report(results(plan, latest([*known.values(), lost])), HERE)
    assert dict(report.facts)["cells"] == "20 of 21 done, 1 broken off"
    rows = {row["variant"]: row for row in table(report, "Scores")}
    assert (rows["aff"]["failed"], rows["aff"]["note"]) == (1, "its worker died")
    for rows_in_some_order in ([trained, lost], [lost, trained]):  # stores are merged in any order
        assert finished(rows_in_some_order) == {identity: trained}


def test_too_few_seeds_are_told_of_the_comparisons_that_have_them() -> None:
    spec = dataclasses.replace(study("scale"), seeds=tuple(range(8)))
    report = report_of(spec, lambda name, seed: None if name == "aff" else rising(name, seed))
    (note,) = [note for note in report.notes if "nothing can be compared" in note]
    assert "aff against" in note
    assert "local-local" not in note.split(":")[0].replace("against local-local", "")
    assert not any("With 0 seeds" in note for note in report.notes)
