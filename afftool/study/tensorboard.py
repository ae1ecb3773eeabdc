"""A study's cells as TensorBoard scalars and hyperparameters, one log folder a cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from afftool.extras import need
from afftool.study.cells import CellRecord

if TYPE_CHECKING:
    from afftool.study.train import Tick


class Log:
    """Writes below `folder`; a cell's folder is `VARIANT/seed-N`. Raises `LoadError` without tensorboard."""

    def __init__(self, folder: Path, names: dict[str, tuple[str, int]]) -> None:
        need("tensorboard", "ablate")
        self._folder = folder
        self._names = names
        self._writers: dict[str, Any] = {}

    def add(self, event: Tick | CellRecord) -> None:
        """Write an epoch's end or a cell's."""
        if isinstance(event, CellRecord):
            self._end(event)
        else:
            self._tick(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def _tick(self, tick: Tick) -> None:
        writer = self._writer(tick.identity)
        if tick.loss is not None:
            writer.add_scalar("loss/train", tick.loss, tick.epoch)
        if tick.score is not None:
            writer.add_scalar("score/test", tick.score, tick.epoch)

    def _end(self, record: CellRecord) -> None:
        """A cell's last score, with its settings as hyperparameters."""
        writer = self._writer(record.identity)
        name, seed = self._names[record.identity]
        settings = {key: value for key, value in record.cell.recipe.to_dict().items() if key != "milestones"}
        settings |= {"variant": name, "fusion": record.cell.fusion, "host": record.cell.host, "seed": seed}
        if record.score is not None:
            writer.add_scalar("score/test", record.score, record.cell.recipe.epochs)
            metrics = {"hparam/score": record.score, "hparam/loss": record.losses[-1]}
            writer.add_hparams(settings, metrics, run_name=".")
        writer.close()
        self._writers.pop(record.identity)

    def _writer(self, identity: str) -> Any:
        if identity not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            name, seed = self._names[identity]
            safe = "".join(c if c.isalnum() or c in "-_.=+" else "_" for c in name)
            self._writers[identity] = SummaryWriter(str(self._folder / safe / f"seed-{seed}"))
        return self._writers[identity]
