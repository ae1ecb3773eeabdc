"""No engine at all: the cells one after the other, in this process. For tests, debuggers and embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from afftool.study.arrays import Arrays
from afftool.study.cells import CellRecord, CellSpec
from afftool.study.checkpoints import FileCheckpoint
from afftool.study.train import Tick, train


def run_here(
    cells: Sequence[CellSpec], data: Arrays, folder: Path, *, device: str | None = None
) -> Iterator[Tick | CellRecord]:
    """Train the cells in turn; a cell's ticks come with its record, because nothing can be told in between.

    `device` is the one of the cells' kind to use, for example `cuda:1`.
    """
    for cell in cells:
        ticks: list[Tick] = []
        kept = FileCheckpoint(folder, cell.identity)
        record = train(cell, data, checkpoint=kept, report=ticks.append, device=device)
        yield from ticks
        yield record
