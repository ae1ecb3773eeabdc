"""Where rows are made ready: in this process, or each in one of its own.

A kernel that fails (an illegal access, an assertion) takes the device from its whole process: nobody in it can use that
again. So once the device no longer answers here, rows are made ready in processes of their own, those that were ready
before as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch

from afftool.bench.child import Isolated, Patience, enter_child
from afftool.bench.entry import EagerOutputs, Entrant, enter
from afftool.bench.rows import Row
from afftool.build import Case, build_case
from afftool.device_health import answers, failure_on, free_memory
from afftool.errors import TooLarge
from afftool.failure import FailedError, Failure
from afftool.measure.time.contestant import Clock, clock_for
from afftool.process import ChildEnded
from afftool.record import Isolation
from afftool.room import Need, check_room, free_bytes, least_of_both, least_of_step
from afftool.spec import CaseSpec
from afftool.spec.options import Options


class Here:
    """A case in this process: built, and run by eager, once for all of its backends and not before it is needed."""

    def __init__(self, spec: CaseSpec) -> None:
        self._spec = spec

    @cached_property
    def case(self) -> Case:
        """The case."""
        return build_case(self._spec)

    @property
    def least(self) -> Need:
        """What it needs at the least to be made ready, beside what it already has."""
        return least_of_step(self._spec) if "case" in vars(self) else least_of_both(self._spec)

    @cached_property
    def eager(self) -> EagerOutputs:
        """What eager makes of it."""
        return EagerOutputs(self.case)


@dataclass
class Place:
    """Makes rows ready as `options` say, where `isolation` says; `clock` is the device's own unless given.

    `isolation` becomes `process`, for good, where the device no longer answers this one. A clock that was given stays
    behind then: those processes have the device's own.
    """

    options: Options
    isolation: Isolation
    clock: Clock | None
    patience: Patience

    def enter(self, row: Row, here: Here) -> None:
        """Make a row ready, or note why it cannot be; `here` is its case for this process."""
        try:
            check_room(here.least, row.spec.device, what=f"{row.spec.fusion} under {row.backend}")
            row.enter(self._local(row, here) if self.isolation == "none" else self._child(row))
        except (Exception, SystemExit) as error:
            row.fail(self.failure(row, error))
        if row.failed:
            self.recover(row.spec.device)

    def failure(self, row: Row, error: BaseException) -> FailedError:
        """What went wrong with a row, as plain words, which hold no memory; with the device's, if it failed here."""
        return FailedError(failure_on(row.spec.device, error) if self.isolation == "none" else Failure.of(error))

    def recover(self, device: str) -> None:
        """After something failed on `device`: give back what that held, and see whether it can still be used here.

        To be called after the `except` block: in it the exception still holds its frames, and they the memory.
        """
        if self.isolation == "none":
            free_memory()
            if not answers(device):
                self.isolation = "process"

    def enter_lost(self, rows: Sequence[Row]) -> bool:
        """Make those rows ready again that were so in this process before it lost the device; whether there were any.

        A row that fails for it says why; its times, if it has them, stay.
        """
        lost = [row for row in rows if self.isolation == "process" and row.entrant and row.entrant.pid is None]
        for row in lost:
            row.close()
            self.enter(row, Here(row.spec))
        return bool(lost)

    @contextmanager
    def fresh(self, rows: Sequence[Row]) -> Iterator[list[Isolated | Exception]]:
        """A fresh process a row, made ready and nothing else, until the block ends; or why there is none.

        All of them start and get ready at the same time: nothing is timed meanwhile. One that cannot fit into memory
        beside those before it is not started.
        """
        with ExitStack() as ended:
            begun: list[Isolated | Exception] = []
            free, taken = free_bytes(rows[0].spec.device) if rows else None, 0
            for row in rows:
                need, what = least_of_both(row.spec), f"{row.spec.fusion} under {row.backend}"
                try:
                    check_room(need, row.spec.device, what=what, free=free, taken=taken)
                except TooLarge as error:
                    begun.append(error)
                    continue
                taken += need.nbytes
                child = Isolated(self.patience)
                ended.callback(child.close)
                begun.append(child)
                try:
                    child.prepare(
                        row.spec,
                        row.backend,
                        writes=row.record.writes_inputs or (),
                        cache=self.options.cache,
                        threads=torch.get_num_threads(),
                    )
                except ChildEnded as error:
                    begun[-1] = error
            yield [_once_ready(child) for child in begun]

    def _local(self, row: Row, here: Here) -> Entrant:
        return enter(
            here.case,
            row.known,
            eager=here.eager,
            measures=self.options.measures,
            clock=self.clock or clock_for(row.spec.device),
            cache=self.options.cache,
        )

    def _child(self, row: Row) -> Entrant:
        return enter_child(
            row.spec,
            row.known,
            measures=self.options.measures,
            cache=self.options.cache,
            threads=torch.get_num_threads(),
            patience=self.patience,
        )


def _once_ready(child: Isolated | Exception) -> Isolated | Exception:
    if isinstance(child, Isolated):
        try:
            child.wait()
        except FailedError as error:
            return error
    return child
