"""A study's run in the store, and the report made of it again: whatever cell is in the store now counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from afftool.report.model import Report
from afftool.store import Store
from afftool.study.cells import latest
from afftool.study.outcome import outcome
from afftool.study.report import study_report


def plan_of(store: Store, run_id: int) -> dict[str, Any] | None:
    """The plan a run of `ablate` began with; None for a run of another command."""
    return next((row for row in store.cells(run_id) if "study" in row and "identity" not in row), None)


def stored_report(store: Store, run_id: int, *, pairs: bool = False) -> Report | None:
    """The report of a run of `ablate`; None for a run of another command."""
    plan = plan_of(store, run_id)
    if plan is None:
        return None
    records = [(run.environment, record) for run in store.runs() for record in run.records]
    run = store.run(run_id)
    report = study_report(outcome(plan, latest(store.cells()), pairs=pairs, records=records), run.environment)
    return replace(
        report,
        facts=(*report.facts, ("command", run.command), ("begun", run.started)),
        document={**report.document, "command": run.command, "started": run.started},
    )
