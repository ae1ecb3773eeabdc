"""Studies in the store: their plans and their cells told apart, those of an earlier afftool read as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_cells import two_cells
from still_says import assert_still_says

from afftool.formats import renderer
from afftool.store import Store, Unreadable
from afftool.study.cells import CellRecord, StoredPlan
from afftool.study.rows import read_row
from afftool.study.stored import finished, stored_report, study_rows
from afftool.tables import Report

STORED = Path(__file__).parents[1] / "stored"
"""`study.sqlite` was written by commit 6b0d65f; `study.json`, `study.md` are what a later `report` said of it."""


def as_in_the_file(fields: dict[str, Any]) -> bytearray:
    return bytearray(json.dumps(fields), "utf-8")


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
        rows = study_rows(store)
    (plan,) = (row for row in rows if isinstance(row, StoredPlan))
    known = finished(rows)
    assert {identity for _, _, identity in plan.cells} == known.keys()
    assert all(record.cell.identity == identity for identity, record in known.items())


def test_a_plan_and_a_cell_are_told_apart_in_one_table() -> None:
    made = two_cells()
    record = CellRecord(cell=made.cells[0][2], identity=made.cells[0][2].identity, accuracy=0.5)
    for row in (made.stored(), record):
        assert read_row(as_in_the_file(row.to_dict())) == row
    assert StoredPlan.from_dict(made.stored().to_dict()).facts == made.facts


def test_a_row_that_cannot_be_read_is_told_with_its_field() -> None:
    made = two_cells()
    row = CellRecord(cell=made.cells[0][2], identity="x").to_dict() | {"params": "many"}
    with pytest.raises(Unreadable, match="params is a whole number, not 'many'"):
        read_row(as_in_the_file(row))
