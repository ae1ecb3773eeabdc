"""Several stored studies side by side: what is shared, on one scale, in every format; what cannot be is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_runs import bench_run
from made_up_studies import HERE, made

from afftool import catalog
from afftool.cli import main
from afftool.errors import SpecError
from afftool.formats import renderer
from afftool.record import Run
from afftool.store import Store
from afftool.study.grids import study
from afftool.study.report.together import together
from afftool.study.results import results
from afftool.study.spec import StudySpec
from afftool.study.together import Told
from afftool.tables import Report

GAINS = {"global-global": 0.0, "local-local": 0.01, "aff": 0.03, "add": -0.02}


def spec(*variants: str, seeds: int = 8, **changes: Any) -> StudySpec:
    wanted = study("scale").with_variants(list(variants or ("global-global", "local-local", "aff")))
    return dataclasses.replace(wanted, seeds=tuple(range(seeds)), budget=None, **changes)


def score(level: float, luck: int) -> Callable[[str, int], float]:
    noise = np.random.default_rng(luck).normal(0, 0.008, (len(GAINS), 100))
    return lambda name, seed: level + GAINS[name] + float(noise[list(GAINS).index(name), seed])


def told(number: int, wanted: StudySpec, scored: Any) -> Told:
    run = Run(id=number, command="afftool ablate scale", started="2026", environment=HERE, baseline=None, records=())
    return Told(run, results(*made(wanted, scored)))


def two(**changes: Any) -> Report:
    """Two hosts, on other data each."""
    return together(
        [
            told(1, spec(**changes), score(0.6, 1)),
            told(2, spec(host="resnet:b=2", data="digits", **changes), score(0.9, 2)),
        ]
    )


def table(report: Report, title: str) -> dict[str, dict[str, Any]]:
    return {row["variant"]: row for row in next(t for t in report.tables if t.title == title).named_rows()}


def test_two_hosts_on_other_data_have_one_scale() -> None:
    report = two()
    rows = table(report, "All studies")
    assert list(rows) == ["local-local", "aff"]
    for name, row in rows.items():
        assert row["gain_low"] < GAINS[name] < row["gain_high"]
        assert row["gain_high"] - row["gain_low"] < 0.03  # though the studies' levels lie thirty points apart
        assert 0.5 < row["improvement_low"] < row["improvement_value"] <= 1
        assert row["runs"] == 16
    assert table(report, "Each study")["aff"]["study 2"] == pytest.approx(0.03, abs=0.01)
    assert [bar.label for bar in report.charts[0].bars] == ["local-local", "aff"]
    facts = dict(report.facts)
    assert "resnet:b=2 on digits" in facts["study 2"]
    assert "left out" not in facts


def test_the_profile_falls_from_all_runs_to_none_and_the_exact_data_are_finer() -> None:
    report = two()
    profile = next(t for t in report.tables if t.title == "Performance profile")
    assert 4 <= len(profile.columns) <= 12
    for row in profile.rows:
        shares = [cell.value for cell in row[1:]]
        assert shares == sorted(shares, reverse=True)
    rows = [row for row in report.data.to_dict("records") if row["quantity"] == "profile" and row["variant"] == "aff"]
    assert len(rows) == 4 * (len(profile.columns) - 2) + 1
    assert 0.0 in [row["threshold"] for row in rows]
    assert [one["threshold"] for one in report.document["variants"]["aff"]["profile"]] == [r["threshold"] for r in rows]


@pytest.mark.parametrize("name", sorted(catalog.FORMATS))
def test_every_format_writes_it(name: str) -> None:
    text = renderer(name)(two())
    assert "local-local" in text
    if name == "json":
        assert json.loads(text)["studies"][1]["scores"]["aff"]


def test_the_same_study_on_another_subset_counts_beside_it() -> None:
    def drawn(number: int, fingerprint: str) -> Told:
        plan, known = made(spec(data_seed=number), score(0.6, number))
        other = {
            identity: dataclasses.replace(cell, cell=dataclasses.replace(cell.cell, fingerprint=fingerprint))
            for identity, cell in known.items()
        }
        moved = {cell.cell.identity: dataclasses.replace(cell, identity=cell.cell.identity) for cell in other.values()}
        cells = tuple((name, seed, other[identity].cell.identity) for name, seed, identity in plan.cells)
        one = told(number, spec(), score(0.6, number))
        return Told(one.run, results(dataclasses.replace(plan, cells=cells), moved))

    report = together([drawn(1, "f"), drawn(2, "g")])
    assert table(report, "All studies")["aff"]["runs"] == 16
    assert "data seed 2" in dict(report.facts)["study 2"]


def test_variants_that_are_not_in_all_studies_are_named_and_left_out() -> None:
    one = told(1, spec("global-global", "local-local", "aff", "add"), score(0.6, 1))
    other = told(2, spec("global-global", "aff", data="digits", host="resnet:b=2"), score(0.9, 2))
    report = together([one, other])
    assert list(table(report, "All studies")) == ["aff"]
    assert dict(report.facts)["left out"] == "local-local, not in study 2; add, not in study 2"
    assert report.document["left_out"] == {"local-local": "not in study 2", "add": "not in study 2"}


def test_one_name_for_two_fusions_is_left_out() -> None:
    renamed = spec(host="resnet:b=2")
    changed = tuple(
        dataclasses.replace(v, fusion="aff:reduction=8") if v.name == "local-local" else v for v in renamed.variants
    )
    other = told(2, dataclasses.replace(renamed, variants=changed), score(0.9, 2))
    assert "not the same fusion" in dict(together([told(1, spec(), score(0.6, 1)), other]).facts)["left out"]


def test_few_seeds_give_numbers_and_say_why_there_are_no_intervals() -> None:
    report = two(seeds=5)
    assert "gain_low" not in table(report, "All studies")["aff"]
    assert any("Intervals take 6 seeds" in note and "study 1 has 5" in note for note in report.notes)


def test_a_failed_run_counts_as_nothing_scored_and_a_missing_one_leaves_its_seed_out() -> None:
    scored = score(0.6, 1)
    plan, known = made(spec(), lambda name, seed: None if (name, seed) == ("aff", 3) else scored(name, seed))
    known.pop(next(identity for name, seed, identity in plan.cells if (name, seed) == ("local-local", 5)))
    one = Told(told(1, spec(), scored).run, results(plan, known))
    report = together([one, told(2, spec(host="resnet:b=2"), score(0.9, 2))])
    first = report.document["studies"][0]
    assert first["seeds"] == [0, 1, 2, 3, 4, 6, 7]
    assert first["scores"]["aff"][3] == 0
    assert any("1 run failed, and counts as a score of 0" in note for note in report.notes)


def test_what_cannot_stand_together_is_refused_with_what_to_do() -> None:
    one = told(1, spec(), score(0.6, 1))
    with pytest.raises(SpecError, match="two studies"):
        together([one])
    with pytest.raises(SpecError, match="run 1 and run 1 hold the same trained cells"):
        together([one, one])
    with pytest.raises(SpecError, match=r"baseline global-global .*not in study 2"):
        together([one, told(2, spec("add", "aff", host="resnet:b=2"), score(0.9, 2))])
    with pytest.raises(SpecError, match="any variant but the baseline"):
        together([one, told(2, spec("global-global", "add", host="resnet:b=2"), score(0.9, 2))])
    plan, _ = made(spec(host="resnet:b=2"), score(0.9, 2))
    with pytest.raises(SpecError, match="no seed of run 2") as refused:
        together([one, Told(told(2, spec(), score(0.9, 2)).run, results(plan, {}))])
    assert "finish it" in str(refused.value.hint)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Two studies and a bench in one store, and one of the studies in another."""
    with Store.open(tmp_path / "runs.sqlite") as store:
        for place, wanted in enumerate((spec(), spec(host="resnet:b=2", data="digits"))):
            plan, known = made(wanted, score(0.6 + 0.1 * place, place))
            run = store.begin("afftool ablate scale", HERE, "global-global")
            store.append_cell(run, plan.to_dict())
            for cell in known.values():
                store.append_cell(run, cell.to_dict())
        run = store.begin("afftool bench", HERE, "add")
        store.append(run, bench_run().records[0])
    with Store.open(tmp_path / "other.sqlite") as store:
        plan, known = made(spec(host="resnet:b=3"), score(0.7, 5))
        run = store.begin("afftool ablate scale", HERE, "global-global")
        for row in (plan, *known.values()):
            store.append_cell(run, row.to_dict())
    return tmp_path


@pytest.fixture
def compare(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(stored)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["afftool", "compare", *words, "--store", "runs.sqlite"])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def test_the_command_takes_studies_of_any_store(compare: Callable[..., tuple[int, str, str]], stored: Path) -> None:
    code, out, _ = compare("1", "2", "other.sqlite:1", "--out", "both.csv")
    assert code == 0
    rows = list(csv.DictReader(line for line in (stored / "both.csv").open() if not line.startswith("#")))
    assert {row["quantity"] for row in rows} == {"gain", "improvement", "profile"}
    assert {row["studies"] for row in rows} == {"3"}
    code, out, _ = compare("1", "2")
    assert (code, "## Performance profile" in out) == (0, True)


def test_a_study_and_a_bench_are_not_mixed(compare: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = compare("1", "3")
    assert code == 2
    assert "run 1 is a study and run 3 is none" in err
    assert "studies alone" in err
