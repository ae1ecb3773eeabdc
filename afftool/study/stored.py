"""A study in the store: its rows read, what counts of them, and the report made of whatever is there now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from afftool.errors import StoreError
from afftool.plain import Plain
from afftool.store import Store
from afftool.study.cells import CellRecord, StoredPlan
from afftool.study.report import study_report
from afftool.study.results import Results, results
from afftool.tables import Report

Row = TypeVar("Row", bound=Plain)


def read_plans(rows: Iterable[Mapping[str, Any]]) -> list[StoredPlan]:
    """The plans among stored rows. Raises `StoreError` for a damaged one."""
    return [_read(StoredPlan, row) for row in rows if _is_plan(row)]


def read_cells(rows: Iterable[Mapping[str, Any]]) -> list[CellRecord]:
    """The records of cells among stored rows. Raises `StoreError` for a damaged one."""
    return [_read(CellRecord, row) for row in rows if not _is_plan(row)]


def _is_plan(row: Mapping[str, Any]) -> bool:
    """A run's plan lies among its cells, as layout 1 of the store has it; only a cell has an identity."""
    return "identity" not in row


def _read(kind: type[Row], row: Mapping[str, Any]) -> Row:
    try:
        return kind.from_dict(row)
    except TypeError as error:
        raise StoreError(
            f"a study's row in the store cannot be read: {error}", hint="was it written by a newer afftool?"
        ) from error


def latest(rows: Iterable[Mapping[str, Any]]) -> dict[str, CellRecord]:
    """The last record of every cell among stored rows, by identity.

    A record that is not finished never replaces one that is: stores are merged in any order.
    """
    records: dict[str, CellRecord] = {}
    for record in read_cells(rows):
        # Of two finished ones the later counts (`--fresh` trains anew); on the CPU they differ in times alone.
        before = records.get(record.identity)
        if record.finished or before is None or not before.finished:
            records[record.identity] = record
    return records


def finished(rows: Iterable[Mapping[str, Any]]) -> dict[str, CellRecord]:
    """The cells among stored rows that need no training: those whose last record is finished."""
    return {identity: record for identity, record in latest(rows).items() if record.finished}


def stored_results(store: Store, run_id: int, *, pairs: bool = False, margin: float | None = None) -> Results | None:
    """What came out of a run of `ablate`, as far as the store knows by now; None for a run of another command.

    `margin` is a share.
    """
    plans = read_plans(store.cells(run_id))
    if not plans:
        return None
    run, runs = store.run(run_id), store.runs()
    records = [(one.environment, record) for one in runs for record in one.records]
    before = sorted((one.started, one.id) for one in runs if (one.started, one.id) < (run.started, run.id))
    earlier = [plan for _, number in before for plan in read_plans(store.cells(number))]
    return results(plans[0], latest(store.cells()), pairs=pairs, margin=margin, earlier=earlier, records=records)


def stored_report(store: Store, run_id: int, *, pairs: bool = False, margin: float | None = None) -> Report | None:
    """The report of a run of `ablate`; None for a run of another command. `margin` is a share."""
    found = stored_results(store, run_id, pairs=pairs, margin=margin)
    if found is None:
        return None
    run = store.run(run_id)
    report = study_report(found, run.environment)
    return replace(
        report,
        facts=(*report.facts, ("command", run.command), ("begun", run.started)),
        document={**report.document, "command": run.command, "started": run.started},
    )
