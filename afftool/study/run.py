"""Carry a plan out: skip what is finished, train the rest on an engine, yield each event. The caller stores."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from afftool.errors import SpecError
from afftool.study.arrays import Arrays
from afftool.study.cells import CellRecord, CellSpec
from afftool.study.checkpoints import FileCheckpoint
from afftool.study.plan import Plan
from afftool.study.train import Tick

Engine = Callable[[Sequence[CellSpec], Arrays, Path], Iterator[Tick | CellRecord]]
"""Trains cells, keeping checkpoints in a folder, and yields every epoch's end and every cell's record once."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """One of `of` parts of a study, `part` counted from 1."""

    part: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/5`. Raises `SpecError`."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise SpecError(f"{text!r} is no shard", hint="--shard 2/5 is the second of five parts")
        return cls(int(match[1]), int(match[2]))

    def of_cells(self, cells: Sequence[CellSpec], variants: int = 1) -> list[CellSpec]:
        """This part of the cells, in their order: every `of`-th, where each seed's `variants` are counted from another
        one on, so that no part gets all cells of the slowest variant."""
        rows = [cells[i : i + variants] for i in range(0, len(cells), variants)]
        turned = [row[(v + n) % len(row)] for n, row in enumerate(rows) for v in range(len(row))]
        mine = {cell.identity for cell in turned[self.part - 1 :: self.of]}
        return [cell for cell in cells if cell.identity in mine]


def todo(plan: Plan, known: Mapping[str, CellRecord], shard: Shard) -> list[CellSpec]:
    """The cells of this shard that are not finished, in training order."""
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
    for event in engine(cells, plan.data, folder):
        if isinstance(event, CellRecord):
            yield dataclasses.replace(event, macs=macs[event.identity])
            if event.finished:
                FileCheckpoint(folder, event.identity).drop()
        else:
            yield event


__all__ = ["Engine", "Shard", "Tick", "run", "todo"]
