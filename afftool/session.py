"""A bench from plan to stored run: every record is stored, then shown, the moment it exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from afftool.console import Following
from afftool.record import Environment, Record, Run
from afftool.report.line import one_line
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
) -> Run:
    """Append each of `records` as it comes, after `complete` had its say, and return the finished run.

    Whatever stops the generator, what came before is stored. Raises `Interrupted` after Ctrl-C.
    """
    run_id = store.begin(command, environment, baseline)
    try:
        for record in records:
            whole = complete(record)
            store.append(run_id, whole)
            follow.line(one_line(whole))
    except KeyboardInterrupt:
        raise Interrupted(store.run(run_id)) from None
    store.finish(run_id)
    return store.run(run_id)
