"""One run of a study against a store: what is to train, and every record stored before anybody hears of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from afftool.environment import read
from afftool.errors import NothingMeasured
from afftool.store import Store
from afftool.study.cells import CellRecord, CellSpec
from afftool.study.plan import Conditions, Plan, plan
from afftool.study.run import Engine, Shard, run, todo
from afftool.study.spec import StudySpec
from afftool.study.stored import finished, latest
from afftool.study.train import Tick


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """A planned study and its run in the store.

    `cells` are those still to train, `names` the (variant, seed) of every cell, `shard` the identities of this part.
    """

    plan: Plan
    store: Store
    run_id: int
    cells: tuple[CellSpec, ...]
    names: dict[str, tuple[str, int]]
    shard: tuple[str, ...]
    fresh: bool = False

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, beside the store, so that the same store finds them again."""
        return self.store.path.parent / "cells"

    def events(self, engine: Engine) -> Iterator[Tick | CellRecord]:
        """Train on an engine; a record is in the store before it is yielded, and the run is finished at the end."""
        for event in run(self.plan, self.cells, engine, self.checkpoints, fresh=self.fresh):
            if isinstance(event, CellRecord):
                self.store.append_cell(self.run_id, event.to_dict())
            yield event
        self.store.finish(self.run_id)

    def kept(self) -> list[CellRecord]:
        """What the store holds of the study's other cells, which need no training."""
        known, training = finished(self.store.cells()), {cell.identity for cell in self.cells}
        return [known[identity] for identity in self.names if identity in known and identity not in training]

    def check(self) -> None:
        """Raise `NothingMeasured` if no cell of this shard has a score, whichever run trained them."""
        known = latest(self.store.cells())
        mine = [known[identity] for identity in self.shard if identity in known]
        if mine and all(record.score is None for record in mine):
            failures = [record.reason or "failed" for record in mine]
            raise NothingMeasured(
                f"every cell failed, the first with: {failures[0]}",
                hint="a smaller lr, as --recipe short:lr=0.01, or `afftool inspect` for a fusion",
            )


def begin(spec: StudySpec, store: Store, conditions: Conditions, *, shard: Shard, fresh: bool, command: str) -> Session:
    """Plan a study and enter it into the store as a run. Raises what `plan` raises, before anything is stored."""
    planned = plan(spec, conditions)
    known = {} if fresh else finished(store.cells())
    run_id = store.begin(command, read(), spec.baseline)
    store.append_cell(run_id, planned.stored().to_dict())
    return Session(
        plan=planned,
        store=store,
        run_id=run_id,
        cells=tuple(todo(planned, known, shard)),
        shard=tuple(cell.identity for cell in todo(planned, {}, shard)),
        names={cell.identity: (name, seed) for name, seed, cell in planned.cells},
        fresh=fresh,
    )
