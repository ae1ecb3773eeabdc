"""How far a study is, in words and as a share, from the events of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from afftool.study.cells import CellRecord
from afftool.study.spec import CellSpec

if TYPE_CHECKING:
    from afftool.study.train import Tick


@dataclass
class Progress:
    """Counts epochs of the cells to train; `names` are (variant, seed) by identity."""

    cells: Sequence[CellSpec]
    names: dict[str, tuple[str, int]]
    _epochs: dict[str, int] = field(default_factory=dict)
    _ended: int = 0
    _scores: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Epochs of all cells together."""
        return sum(cell.recipe.epochs for cell in self.cells)

    @property
    def done(self) -> int:
        """Epochs trained so far."""
        return sum(self._epochs.values())

    def tick(self, tick: Tick) -> str:
        """Take an epoch's end and say what is going on."""
        self._epochs[tick.identity] = tick.epoch
        if tick.score is not None:
            self._scores[tick.identity] = tick.score
        loss = "" if tick.loss is None else f", loss {tick.loss:.3f}"
        score = self._scores.get(tick.identity)
        so_far = "" if score is None else f", {100 * score:.1f}% so far"
        left = len(self.cells) - self._ended
        return (
            f"{self._name(tick.identity)}, epoch {tick.epoch}/{tick.epochs}{loss}{so_far}; "
            f"{self._ended} cells done, {left} left"
        )

    def end(self, record: CellRecord) -> str:
        """Take a cell's end and say what came of it."""
        self._ended += 1
        self._epochs[record.identity] = record.cell.recipe.epochs
        place = f"[{self._ended}/{len(self.cells)}] {self._name(record.identity)}"
        if record.score is None:
            return f"{place}: failed, {record.reason}"
        what = "accuracy" if record.miou is None else "mIoU"
        speed = f", {record.images_per_s:,.0f} images/s" if record.images_per_s else ""
        return f"{place}: {what} {100 * record.score:.2f}%, loss {record.losses[-1]:.3f}{speed}"

    def _name(self, identity: str) -> str:
        name, seed = self.names[identity]
        return f"{name} seed {seed}"
