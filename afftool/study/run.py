"""Carry a plan out: skip what is finished, train the rest on an engine, yield each event. The caller stores."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from afftool.errors import SpecError
from afftool.study.arrays import Arrays
from afftool.study.cells import CellRecord
from afftool.study.checkpoints import FileCheckpoint
from afftool.study.plan import Plan
from afftool.study.spec import CellSpec
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

    def of_cells(self, cells: Sequence[CellSpec]) -> list[CellSpec]:
        """This part of the cells: every `of`-th, so that all parts take about as long."""
        return list(cells[self.part - 1 :: self.of])


def todo(plan: Plan, known: Mapping[str, CellRecord], shard: Shard) -> list[CellSpec]:
    """The cells of this shard that are not finished, in training order."""
    unique = list({cell.identity: cell for _, _, cell in plan.cells}.values())
    return [cell for cell in shard.of_cells(unique) if cell.identity not in known]


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
