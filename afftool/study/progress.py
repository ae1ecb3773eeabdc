"""How far a study is, in words and as a share, from the events of its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from afftool import units
from afftool.study.cells import CellRecord, CellSpec

if TYPE_CHECKING:
    from afftool.study.train import Tick


@dataclass
class Progress:
    """Counts epochs of the cells to train; `names` are (variant, seed) by identity.

    Epochs kept from an earlier run are no work of this one: its pace, and so the time left, is told without them.
    """

    cells: Sequence[CellSpec]
    names: dict[str, tuple[str, int]]
    _epochs: dict[str, int] = field(default_factory=dict)
    _kept: dict[str, int] = field(default_factory=dict)
    _ended: dict[str, int] = field(default_factory=dict)
    """The epochs a cell ended with; fewer than it should have where it failed."""
    _scores: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Epochs that this run trains, as far as is known by now."""
        whole = sum(self._ended.get(cell.identity, cell.recipe.epochs) for cell in self.cells)
        return whole - sum(self._kept.values())

    @property
    def done(self) -> int:
        """Epochs that this run has trained."""
        return sum(self._epochs.values()) - sum(self._kept.values())

    def tick(self, tick: Tick) -> str:
        """Take an epoch's end and say what is going on."""
        self._kept.setdefault(tick.identity, tick.epoch - 1)
        self._epochs[tick.identity] = tick.epoch
        if tick.score is not None:
            self._scores[tick.identity] = tick.score
        loss = "" if tick.loss is None else f", loss {tick.loss:.3f}"
        score = self._scores.get(tick.identity)
        so_far = "" if score is None else f", {units.percent(score)} so far"
        done = len(self._ended)
        return (
            f"{self._name(tick.identity)}, epoch {tick.epoch}/{tick.epochs}{loss}{so_far}; "
            f"{done} cells done, {len(self.cells) - done} left"
        )

    def end(self, record: CellRecord) -> str:
        """Take a cell's end and say what came of it."""
        identity = record.identity
        reached = len(record.losses) or self._epochs.get(identity, 0)
        self._kept.setdefault(identity, reached)
        self._epochs[identity] = self._ended[identity] = reached
        place = f"[{len(self._ended)}/{len(self.cells)}] {self._name(identity)}"
        if record.score is None:
            return f"{place}: failed, {record.reason}"
        what = "accuracy" if record.miou is None else "mIoU"
        speed = f", {record.images_per_s:,.0f} images/s" if record.images_per_s else ""
        return f"{place}: {what} {units.percent(record.score, 2)}, loss {record.losses[-1]:.3f}{speed}"

    def interrupted(self) -> str:
        """Say what is kept for the next run, this one's work and the earlier ones'."""
        kept, whole = sum(self._epochs.values()), sum(cell.recipe.epochs for cell in self.cells)
        return f"interrupted: {kept} of {whole} epochs are kept"

    def _name(self, identity: str) -> str:
        name, seed = self.names[identity]
        return f"{name} seed {seed}"
