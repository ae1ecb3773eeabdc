"""A study in the store: its rows read, what counts of them, and the report made of whatever is there now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from afftool.errors import StoreError
from afftool.store import Store
from afftool.study.cells import CellRecord, StoredPlan
from afftool.study.report import study_report
from afftool.study.results import Results, results
from afftool.study.rows import StudyRow, read_row
from afftool.tables import Report


def study_rows(store: Store) -> list[StudyRow]:
    """The plans and cells of all runs that can be read, in the order they were stored."""
    return [row for _, row in store.read_cells(read_row)]


def latest(rows: Iterable[StudyRow]) -> dict[str, CellRecord]:
    """The last record of every cell among stored rows, by identity.

    A record that is not finished never replaces one that is: stores are merged in any order.
    """
    records: dict[str, CellRecord] = {}
    for record in rows:
        if not isinstance(record, CellRecord):
            continue
        # Of two finished ones the later counts (`--fresh` trains anew); on the CPU they differ in times alone.
        before = records.get(record.identity)
        if record.finished or before is None or not before.finished:
            records[record.identity] = record
    return records


def finished(rows: Iterable[StudyRow]) -> dict[str, CellRecord]:
    """The cells among stored rows that need no training: those whose last record is finished."""
    return {identity: record for identity, record in latest(rows).items() if record.finished}


def stored_results(store: Store, run_id: int, *, pairs: bool = False, margin: float | None = None) -> Results | None:
    """What came out of a run of `ablate`, as far as the store knows by now; None for a run of another command.

    `margin` is a share.
    """
    rows = store.read_cells(read_row)
    plans = {run: row for run, row in reversed(rows) if isinstance(row, StoredPlan)}
    if run_id not in plans:
        if hidden := next((row for row in store.hidden if (row.table, row.run) == ("cells", run_id)), None):
            raise StoreError(f"{store.path}: the plan of run {run_id} cannot be read", hint=str(hidden))
        return None
    run, runs = store.run(run_id), store.runs()
    records = [(one.environment, record) for one in runs for record in one.records]
    before = sorted((one.started, one.id) for one in runs if (one.started, one.id) < (run.started, run.id))
    earlier = [plans[number] for _, number in before if number in plans]
    known = latest(row for _, row in rows)
    return results(plans[run_id], known, pairs=pairs, margin=margin, earlier=earlier, records=records)


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
