"""Carry a study out: skip what is finished, train the rest on an engine, store each record before it is told.

`run` only yields what happens; an `Ablation` runs against a store, where records are safe before anybody hears of them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from afftool.environment import read
from afftool.errors import NothingMeasured, SpecError
from afftool.spec.amounts import MOST_CASES, read_whole
from afftool.store import Store
from afftool.study.arrays import Subsets
from afftool.study.cells import CellRecord, CellSpec, FileCheckpoint
from afftool.study.plan import Conditions, Plan, plan
from afftool.study.spec import StudySpec
from afftool.study.stored import finished, latest, study_rows
from afftool.study.train import Tick

Engine = Callable[[Sequence[CellSpec], Subsets, Path], Iterator[Tick | CellRecord]]
"""Trains cells, keeping checkpoints in a folder, and yields every epoch's end and every cell's record once."""


@dataclass(frozen=True)
class Shard:
    """One of `of` parts of a study, `part` counted from 1."""

    part: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/5`. Raises `SpecError`."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        hint = "--shard 2/5 is the second of five parts"
        if not match:
            raise SpecError(f"{text!r} is no shard", hint=hint)
        parts = read_whole(f"--shard {text[:40]}: of", match[2], most=MOST_CASES, hint=hint)
        return cls(read_whole(f"--shard {text[:40]}: part", match[1], most=parts, hint=hint), parts)

    def of_cells(self, cells: Sequence[CellSpec], variants: int = 1) -> list[CellSpec]:
        """This part of the cells, in their order: every `of`-th, where each seed's `variants` are counted from another
        one on, so that no part gets all cells of the slowest variant."""
        # Without the turning, where `of` divides the number of variants, a part had the same variants at every seed.
        rows = [cells[i : i + variants] for i in range(0, len(cells), variants)]
        turned = [row[(v + n) % len(row)] for n, row in enumerate(rows) for v in range(len(row))]
        mine = {cell.identity for cell in turned[self.part - 1 :: self.of]}
        return [cell for cell in cells if cell.identity in mine]


def todo(plan: Plan, known: Mapping[str, CellRecord], shard: Shard) -> list[CellSpec]:
    """The cells of this shard that are not finished, in training order."""
    # Shared out before the finished ones are left out, so that a shard has the same cells however far the others are.
    unique = list({cell.identity: cell for _, _, cell in plan.cells}.values())
    mine = shard.of_cells(unique, len(plan.study.variants))
    return [cell for cell in mine if cell.identity not in known]


def run(
    plan: Plan, cells: Sequence[CellSpec], engine: Engine, folder: Path, *, fresh: bool = False
) -> Iterator[Tick | CellRecord]:
    """Train `cells` and yield ticks and records; checkpoints lie in `folder` until the caller has taken the record.

    With `fresh`, checkpoints of these cells are dropped first.
    """
    if fresh:
        for cell in cells:
            FileCheckpoint(folder, cell.identity).drop()
    macs = {cell.identity: plan.facts[name].macs for name, _, cell in plan.cells}
    needed = {cell.fingerprint: plan.subsets[cell.fingerprint] for cell in cells}
    for event in engine(cells, needed, folder):
        if isinstance(event, CellRecord):
            yield dataclasses.replace(event, macs=macs[event.identity])
            # Here again, the caller has stored the record: only now may the checkpoint go. A cell that is not finished
            # (its worker was lost) keeps it, and the next run goes on from there.
            if event.finished:
                FileCheckpoint(folder, event.identity).drop()
        else:
            yield event


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablation:
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
        known, training = finished(study_rows(self.store)), {cell.identity for cell in self.cells}
        return [known[identity] for identity in self.names if identity in known and identity not in training]

    def check(self) -> None:
        """Raise `NothingMeasured` if no cell of this shard has a score, whichever run trained them."""
        known = latest(study_rows(self.store))
        mine = [known[identity] for identity in self.shard if identity in known]
        if mine and all(record.score is None for record in mine):
            failures = [record.reason or "failed" for record in mine]
            raise NothingMeasured(
                f"every cell failed, the first with: {failures[0]}",
                hint="a smaller lr, as --recipe short:lr=0.01, or `afftool inspect` for a fusion",
            )


def begin(
    spec: StudySpec,
    store: Store,
    conditions: Conditions,
    *,
    device: str,
    shard: Shard,
    fresh: bool,
    command: str,
    batch_chosen: bool = True,
) -> Ablation:
    """Plan a study for `device` and enter it into the store as a run; a batch that was not chosen may shrink.

    Raises what `plan` raises, before anything is stored.
    """
    planned = plan(spec, conditions, batch_chosen=batch_chosen)
    known = {} if fresh else finished(study_rows(store))
    run_id = store.begin(command, read(device), spec.baseline)
    store.append_cell(run_id, planned.stored().to_dict())
    return Ablation(
        plan=planned,
        store=store,
        run_id=run_id,
        cells=tuple(todo(planned, known, shard)),
        shard=tuple(cell.identity for cell in todo(planned, {}, shard)),
        names={cell.identity: (name, seed) for name, seed, cell in planned.cells},
        fresh=fresh,
    )


__all__ = ["Ablation", "Engine", "Shard", "Tick", "begin", "run", "todo"]
