"""Cells on the cores and GPUs of one machine: N fresh processes, each training one cell at a time.

A worker that dies is replaced and its cell goes on from the last epoch; if this process dies, the workers end too.
`concurrent.futures` is no help here: one killed worker breaks its whole pool.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np

from afftool.study.arrays import Arrays
from afftool.study.cells import CellRecord, CellSpec
from afftool.study.checkpoints import FileCheckpoint
from afftool.study.train import Tick, train

ATTEMPTS = 3
"""How often a cell is tried whose worker dies; a cell that kills its worker every time is the cell's own fault."""
_ARRAYS = ("train_images", "train_targets", "test_images", "test_targets", "test_bands")


@dataclasses.dataclass(frozen=True)
class LocalEngine:
    """Trains on one worker process for each of `devices`, for example `("cpu", "cpu")` or `("cuda:0", "cuda:1")`."""

    devices: tuple[str, ...]

    def __call__(self, cells: Sequence[CellSpec], data: Arrays, folder: Path) -> Iterator[Tick | CellRecord]:
        """Yield ticks as epochs end and records as cells end, in no fixed order."""
        if not cells:
            return
        waiting, attempts = deque(cells), dict.fromkeys((cell.identity for cell in cells), 0)
        with tempfile.TemporaryDirectory(prefix="afftool-") as shared:
            rest = _save(data, Path(shared))
            workers = [_Worker(device, shared, rest, folder) for device in self.devices[: len(cells)]]
            try:
                while waiting or any(worker.cell for worker in workers):
                    for worker in workers:
                        if not worker.cell and waiting:
                            worker.give(waiting.popleft())
                    for worker in _ready(workers):
                        event = worker.take()
                        if event is not None:
                            yield event
                            continue
                        lost = worker.cell
                        worker.restart()
                        if lost is None:
                            continue
                        attempts[lost.identity] += 1
                        if attempts[lost.identity] < ATTEMPTS:
                            waiting.appendleft(lost)
                        else:
                            yield _lost(lost)
            finally:
                for worker in workers:
                    worker.stop()


class _Worker:
    """A process, the pipe to it, and the cell it is busy with."""

    def __init__(self, device: str, shared: str, rest: dict[str, Any], folder: Path) -> None:
        self._arguments = (device, shared, rest, str(folder))
        self.cell: CellSpec | None = None
        self.connection, self.process = self._start()

    def _start(self) -> tuple[Connection, SpawnProcess]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        process.start()
        theirs.close()
        return ours, process

    def give(self, cell: CellSpec) -> None:
        """Have it train a cell; if it is dead by now, `take` will tell."""
        self.cell = cell
        try:
            self.connection.send(cell.to_dict())
        except OSError:
            return

    def take(self) -> Tick | CellRecord | None:
        """What it has to say; None if it died."""
        try:
            kind, fields = self.connection.recv()
        except (EOFError, OSError):
            return None
        if kind == "tick":
            return Tick(**fields)
        self.cell = None
        return CellRecord.from_dict(fields)

    def restart(self) -> None:
        """A new process in place of a dead one."""
        self.stop()
        self.cell = None
        self.connection, self.process = self._start()

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        self.process.kill()
        self.process.join()


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    connections = {worker.connection: worker for worker in workers}
    return [connections[ready] for ready in wait(list(connections)) if isinstance(ready, Connection)]


def _work(connection: Connection, device: str, shared: str, rest: dict[str, Any], folder: str) -> None:
    """A worker's life: take a cell, train it, tell; until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    data = _load(Path(shared), rest)
    while True:
        try:
            cell = CellSpec.from_dict(connection.recv())
        except (EOFError, OSError):
            return

        def tell(tick: Tick) -> None:
            connection.send(("tick", dataclasses.asdict(tick)))

        record = train(cell, data, checkpoint=FileCheckpoint(Path(folder), cell.identity), report=tell, device=device)
        connection.send(("record", record.to_dict()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _save(data: Arrays, folder: Path) -> dict[str, Any]:
    """The arrays as files that every worker maps into memory, so that there is one copy; returns the other fields."""
    for name in _ARRAYS:
        if (values := getattr(data, name)) is not None:
            np.save(folder / f"{name}.npy", values)
    return {f.name: getattr(data, f.name) for f in dataclasses.fields(data) if f.name not in _ARRAYS}


def _load(folder: Path, rest: dict[str, Any]) -> Arrays:
    # "c": private copies of pages that are written to, which none is; torch wants memory it could write to.
    paths = {name: folder / f"{name}.npy" for name in _ARRAYS}
    mapped: dict[str, Any] = {k: np.load(p, mmap_mode="c") if p.exists() else None for k, p in paths.items()}
    return Arrays(**rest, **mapped)


def _lost(cell: CellSpec) -> CellRecord:
    return CellRecord(
        cell=cell,
        identity=cell.identity,
        status="failed",
        reason=f"its worker died {ATTEMPTS} times (killed, or out of memory); fewer --workers leave more memory",
    )
