"""A study's cells as TensorBoard scalars and hyperparameters, one log folder a cell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from afftool.registry import need
from afftool.study.cells import CellRecord
from afftool.written import refuse_folder

if TYPE_CHECKING:
    from afftool.study.train import Tick

_LOSS, _SCORE = "loss/train", "score/test"


def refuse_unwritable(folder: Path, within: Path | None = None) -> None:
    """Raises `LoadError` where there can be no log, long before the first epoch ends; without tensorboard too."""
    need("tensorboard", "ablate")
    refuse_folder(folder, option="--tensorboard", within=within)


class Log:
    """Writes below `folder`; a cell's folder is `VARIANT/seed-N`. Raises `LoadError` where that cannot be."""

    def __init__(self, folder: Path, names: dict[str, tuple[str, int]]) -> None:
        self._folder = folder
        self._names = names
        self._writers: dict[str, Any] = {}
        self._began: dict[str, int] = {}
        for identity in names:
            refuse_unwritable(self._place(identity), folder)

    def add(self, event: Tick | CellRecord) -> None:
        """Write an epoch's end or a cell's."""
        if isinstance(event, CellRecord):
            self._end(event)
        else:
            self._tick(event)

    def replay(self, record: CellRecord) -> None:
        """Write a cell that was trained before, unless an earlier replay did."""
        if not record.losses or any(self._place(record.identity).glob(f"*tfevents*.{record.identity}")):
            return
        self._write(record, self._open(record.identity, 1, suffix=f".{record.identity}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def _tick(self, tick: Tick) -> None:
        if tick.identity not in self._writers:
            self._began[tick.identity] = tick.epoch
            self._writers[tick.identity] = self._open(tick.identity, tick.epoch)
        writer = self._writers[tick.identity]
        if tick.loss is not None:
            writer.add_scalar(_LOSS, tick.loss, tick.epoch)
        if tick.score is not None:
            writer.add_scalar(_SCORE, tick.score, tick.epoch)

    def _end(self, record: CellRecord) -> None:
        """A cell's last score; all of it where this run did not see its first epoch, as no log may have."""
        writer = self._writers.pop(record.identity, None)
        if writer is None:
            self.replay(record)
        elif record.losses and self._began[record.identity] > 1:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog

            writer.file_writer.add_event(Event(step=1, session_log=SessionLog(status=SessionLog.START)))
            self._write(record, writer)
        else:
            if record.score is not None:
                writer.add_scalar(_SCORE, record.score, record.cell.recipe.epochs)
            self._finish(record, writer)

    def _write(self, record: CellRecord, writer: Any) -> None:
        for epoch, loss in enumerate(record.losses, 1):
            writer.add_scalar(_LOSS, loss, epoch)
            if str(epoch) in record.scores:
                writer.add_scalar(_SCORE, record.scores[str(epoch)], epoch)
        self._finish(record, writer)

    def _finish(self, record: CellRecord, writer: Any) -> None:
        """The cell's settings as hyperparameters, with what they led to."""
        name, seed = self._names[record.identity]
        settings = {key: value for key, value in record.cell.recipe.to_dict().items() if key != "milestones"}
        settings |= {"variant": name, "fusion": record.cell.fusion, "host": record.cell.host, "seed": seed}
        if record.score is not None:
            metrics = {"hparam/score": record.score, "hparam/loss": record.losses[-1]}
            writer.add_hparams(settings, metrics, run_name=".")
        writer.close()

    def _open(self, identity: str, step: int, suffix: str = "") -> Any:
        """A writer whose events take the place of older ones from `step` on, as after `--fresh`."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._place(identity)), purge_step=step, filename_suffix=suffix)

    def _place(self, identity: str) -> Path:
        name, seed = self._names[identity]
        safe = "".join(c if c.isalnum() or c in "-_.=+" else "_" for c in name)
        safe = re.sub(r"^\.", "_", safe)  # not the folder above
        return self._folder / safe / f"seed-{seed}"
