"""The rows of studies in a store: plans and cells, read strictly, and which runs need whose."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from afftool.errors import AfftoolError, StoreError
from afftool.plain import from_plain
from afftool.store.rows import LARGEST_BYTES, Unreadable, checked_number, checked_text, fields_of, text_column
from afftool.study.cells import CellRecord, StoredPlan
from afftool.study.results import study_of

StudyRow = StoredPlan | CellRecord


def read_row(value: object) -> StudyRow:
    """A row of a study as the store has it. Raises `Unreadable`."""
    import msgspec

    try:
        row: StudyRow = _cells().decode(text_column(value, "it", LARGEST_BYTES))
    except (msgspec.MsgspecError, RecursionError, AfftoolError):
        row = _read_slowly(fields_of(value))
    if isinstance(row, CellRecord):
        _check_cell(row)
    else:
        _check_plan(row)
    return row


def read_whole_row(value: object) -> StudyRow:
    """A row as `read_row` has it, whose study can be reported too: what is copied from another store."""
    row = read_row(value)
    if isinstance(row, StoredPlan):
        try:
            study_of(row)
        except StoreError as error:
            raise Unreadable(error.message) from None
    return row


def check_none_lost(rows: Sequence[tuple[int, StudyRow]], gone: Collection[int]) -> None:
    """Refuse to remove these runs if the study of another counts a cell that is in them alone. Raises `StoreError`."""
    kept: set[str] = set()
    leaving: dict[str, int] = {}
    for run, row in rows:
        if isinstance(row, CellRecord) and row.finished:
            if run in gone:
                leaving[row.identity] = run
            else:
                kept.add(row.identity)
    for run, row in rows:
        if isinstance(row, StoredPlan) and run not in gone:
            lost = [identity for _, _, identity in row.cells if identity in leaving and identity not in kept]
            if lost:
                raise StoreError(
                    f"run {leaving[lost[0]]} has {len(lost)} trained cells that the study of run {run} counts",
                    hint=f"remove run {run} too, or give --force: `ablate` would train them again",
                )


@cache
def _cells() -> Any:
    import msgspec

    return msgspec.json.Decoder(CellRecord)


def _read_slowly(fields: dict[str, Any]) -> StudyRow:
    """A run's plan lies among its cells, as layout 1 of the store has it; only a cell has an identity."""
    try:
        return from_plain(CellRecord, fields) if "identity" in fields else from_plain(StoredPlan, fields)
    except TypeError as error:
        raise Unreadable(str(error)) from None
    except AfftoolError as error:  # a recipe that cannot be
        raise Unreadable(error.message) from None


def _check_cell(row: CellRecord) -> None:
    for score in (row.accuracy, row.miou, *row.bands.values(), *row.scores.values()):
        if score is not None:
            checked_number(score, "score", high=1)
    for loss in row.losses:
        checked_number(loss, "loss", low=-math.inf, high=math.inf)
    for name in ("params", "macs", "images_per_s", "train_s", "failed_step"):
        if (number := getattr(row, name)) is not None:
            checked_number(number, name)
    texts = {"identity": row.identity, "digest": row.digest, "gpu": row.gpu, "finished_at": row.finished_at}
    for name, text in (texts | {"fusion": row.cell.fusion, "host": row.cell.host, "data": row.cell.data}).items():
        checked_text(text or "", name)
    for key in (*row.bands, *row.scores):
        checked_text(key, "score")


def _check_plan(row: StoredPlan) -> None:
    for name, low in (("train_images", 0), ("test_images", 1), ("classes", 1), ("test_splits", 0)):
        if (number := getattr(row, name)) is not None:
            checked_number(number, name, low=low)
    for extent in row.size:
        checked_number(extent, "size", low=1)
    for facts in row.facts.values():
        checked_number(facts.params, "params")
        checked_number(facts.macs or 0, "macs")
        checked_text(facts.host, "host")
    if any(name not in row.facts for name, _, _ in row.cells):
        raise Unreadable("it has cells of a variant of which it says nothing")
    for name, seed, identity in row.cells:
        checked_number(seed, "seed")
        checked_text(name, "variant")
        checked_text(identity, "identity")
