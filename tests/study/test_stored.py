"""Studies in the store: their plans and their cells told apart, those of an earlier afftool read as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_cells import two_cells
from still_says import assert_still_says

from afftool.errors import StoreError
from afftool.formats import renderer
from afftool.store import Store
from afftool.study.cells import CellRecord, StoredPlan
from afftool.study.stored import finished, read_cells, read_plans, stored_report
from afftool.tables import Report

STORED = Path(__file__).parents[1] / "stored"
"""`study.sqlite` was written by commit 6b0d65f; `study.json`, `study.md` are what a later `report` said of it."""


def report_of(folder: Path, *, pairs: bool) -> Report:
    shutil.copy(STORED / "study.sqlite", folder)
    with Store.open(folder / "study.sqlite", create=False) as store:
        report = stored_report(store, 1, pairs=pairs)
    assert report is not None
    return report


def test_a_study_of_an_earlier_afftool_is_reported_with_its_numbers_as_they_were(tmp_path: Path) -> None:
    now, then = renderer("json")(report_of(tmp_path, pairs=False)), (STORED / "study.json").read_text()
    assert_still_says(json.loads(now), json.loads(then))
    assert renderer("md")(report_of(tmp_path, pairs=True)).strip() == (STORED / "study.md").read_text().strip()


def test_a_study_of_an_earlier_afftool_needs_no_training_again(tmp_path: Path) -> None:
    shutil.copy(STORED / "study.sqlite", tmp_path)
    with Store.open(tmp_path / "study.sqlite", create=False) as store:
        (plan,) = read_plans(store.cells(1))
        known = finished(store.cells())
    assert {identity for _, _, identity in plan.cells} == known.keys()
    assert all(record.cell.identity == identity for identity, record in known.items())


def test_a_plan_and_a_cell_are_told_apart_in_one_table() -> None:
    made = two_cells()
    record = CellRecord(cell=made.cells[0][2], identity=made.cells[0][2].identity, accuracy=0.5)
    rows = json.loads(json.dumps([made.stored().to_dict(), record.to_dict()]))
    assert read_plans(rows) == [made.stored()]
    assert read_cells(rows) == [record]
    assert StoredPlan.from_dict(made.stored().to_dict()).facts == made.facts


def test_a_row_that_cannot_be_read_is_told_with_its_field() -> None:
    made = two_cells()
    row = CellRecord(cell=made.cells[0][2], identity="x").to_dict() | {"params": "many"}
    with pytest.raises(StoreError, match="params is a whole number, not 'many'"):
        read_cells([row])
