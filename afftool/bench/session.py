"""A bench from plan to stored run: every record is stored, then shown, the moment it exists; then taken apart."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from afftool.build import build_case
from afftool.console import Following
from afftool.errors import AfftoolError
from afftool.forks import end_if_copy_of
from afftool.measure.cost.count import count
from afftool.measure.cost.explain import explain as explained
from afftool.measure.memory.peak import measure
from afftool.record import Environment, Record, Run
from afftool.report.breakdown import Breakdown
from afftool.report.lines import one_line
from afftool.room import check_room, least_of_both
from afftool.spec import CaseSpec
from afftool.store import Store


class Interrupted(Exception):
    """The user stopped the run; what was finished is in the store."""

    def __init__(self, run: Run) -> None:
        super().__init__(f"run {run.id} was interrupted")
        self.run = run


def save_as_measured(
    store: Store,
    records: Iterable[Record],
    *,
    command: str,
    environment: Environment,
    baseline: str | None,
    follow: Following,
    complete: Callable[[Record], Record] = lambda record: record,
    shared: Mapping[str, Any] = MappingProxyType({}),
    begun: Callable[[int], None] = lambda run: None,
) -> Run:
    """Append each of `records` as it comes, after `complete` had its say, and return the finished run.

    Of their setting each is told with what is not `shared` by all (`columns.alike`); `begun` hears the run's id.
    Whatever stops the generator, what came before is stored. Raises `Interrupted` after Ctrl-C.
    """
    run_id, owner = store.begin(command, environment, baseline), os.getpid()
    begun(run_id)
    try:
        for record in records:
            end_if_copy_of(owner)
            whole = complete(record)
            store.append(run_id, whole)
            follow.line(one_line(whole, shared))
    except KeyboardInterrupt:
        raise Interrupted(store.run(run_id)) from None
    store.finish(run_id)
    return store.run(run_id)


def break_down(case: CaseSpec, *, explain: bool, per_module: bool, memory: bool) -> Breakdown:
    """Count `case` once more and keep what its record sums up; with `memory`, a training step is made for it too."""
    explanation = reading = None
    try:
        explanation = explained(case) if explain else None
        reading = (explanation.reading if explanation else count(case)) if per_module else None
    except AfftoolError:
        pass
    saved = _saved_by_module(case) if per_module and memory and case.mode == "train" else None
    return Breakdown(case=case, explanation=explanation, reading=reading, saved_by_module=saved)


def _saved_by_module(case: CaseSpec) -> Mapping[str, int] | None:
    try:
        check_room(least_of_both(case), case.device, what=str(case.fusion))
        return measure(build_case(case)).saved_by_module_bytes
    except (Exception, SystemExit):
        return None
