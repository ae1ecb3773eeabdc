"""Cells on one machine: in this process one after the other, or on its cores and GPUs in N fresh processes.

Each process trains one cell at a time. A worker that dies is replaced and its cell goes on from the last epoch; one
whose device stopped answering ends itself, for every further cell would fail in it at once. If this process dies, the
workers end too. `concurrent.futures` is no help here: one killed worker breaks its whole pool.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np

from afftool.device_health import answers
from afftool.errors import DeviceLost
from afftool.forks import end_if_copy_of
from afftool.process import END_S, KILLED, end_of, end_with, hint_on_end
from afftool.scratch import scratch
from afftool.study.arrays import Arrays, Subsets
from afftool.study.cells import CellRecord, CellSpec, FileCheckpoint
from afftool.study.train import Tick, train

ATTEMPTS = 3
"""How often a cell is tried whose worker dies; a cell that kills its worker every time is the cell's own fault."""
_UNUSABLE = "`nvidia-smi` shows who uses it, and whether it takes more than one process; what is done is stored"


def run_here(
    cells: Sequence[CellSpec], data: Subsets, folder: Path, *, device: str | None = None
) -> Iterator[Tick | CellRecord]:
    """Train the cells in turn; a cell's ticks come with its record, because nothing can be told in between.

    `device` is the one of the cells' kind to use, for example `cuda:1`. Raises `DeviceLost` once it no longer answers,
    after the record of the cell that was being trained: no further one can be trained here.
    """
    for cell in cells:
        ticks: list[Tick] = []
        kept = FileCheckpoint(folder, cell.identity)
        lost: DeviceLost | None = None
        try:
            record = train(cell, data[cell.fingerprint], checkpoint=kept, report=ticks.append, device=device)
        except DeviceLost as error:
            record, lost = _failed(cell, error.message), error
        yield from ticks
        yield record
        if lost:
            raise DeviceLost(lost.message, hint="what is done is stored; with --workers 1 a fresh process goes on")


@dataclasses.dataclass(frozen=True)
class LocalEngine:
    """Trains on one worker process for each of `devices`, for example `("cpu", "cpu")` or `("cuda:0", "cuda:1")`."""

    devices: tuple[str, ...]

    def __call__(self, cells: Sequence[CellSpec], data: Subsets, folder: Path) -> Iterator[Tick | CellRecord]:
        """Yield ticks as epochs end and records as cells end, in no fixed order.

        Raises `DeviceLost` if no worker can use its device, with the cells that are left untrained.
        """
        if not cells:
            return
        with scratch() as shared:
            saved = _save(data, Path(shared))
            workers = [_Worker(device, saved, folder) for device in self.devices[: len(cells)]]
            try:
                yield from _share_out(cells, workers)
            finally:
                for worker in workers:
                    worker.stop()


def _share_out(cells: Sequence[CellSpec], workers: list[_Worker]) -> Iterator[Tick | CellRecord]:
    """Keep the workers busy until all cells are done; those that cannot use their device leave the list."""
    waiting, attempts = deque(cells), dict.fromkeys((cell.identity for cell in cells), 0)
    while waiting or any(worker.cell for worker in workers):
        for worker in workers:
            if not worker.cell and waiting:
                worker.give(waiting.popleft())
        for worker in _ready(workers):
            event = worker.take()
            if not isinstance(event, _End):
                yield event
                continue
            lost = worker.cell
            if event.started:
                worker.restart()
            else:  # no cell's fault, and a fresh process would fare no better
                worker.stop()
                workers.remove(worker)
                if not workers:
                    raise DeviceLost(event.why, hint=_UNUSABLE)
                warnings.warn(f"{event.why}: {len(workers)} of {len(workers) + 1} workers go on", stacklevel=2)
            if lost is None:  # it died between two cells: nothing is lost with it
                continue
            attempts[lost.identity] += event.started
            if attempts[lost.identity] < ATTEMPTS:
                waiting.appendleft(lost)  # goes on next, from its checkpoint
            else:
                yield _failed(lost, f"its worker died {ATTEMPTS} times: {event.why}")


@dataclasses.dataclass(frozen=True)
class _End:
    """A worker's last words, or what is thought of one that had none; not `started`: it never could use its device."""

    why: str
    started: bool = True


class _Worker:
    """A process, the pipe to it, and the cell it is busy with."""

    def __init__(self, device: str, saved: _Saved, folder: Path) -> None:
        self._arguments = (device, saved, str(folder))
        self.cell: CellSpec | None = None
        self.connection, self.process = self._start()

    def _start(self) -> tuple[Connection, SpawnProcess]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        with _safe_path():
            process.start()
        theirs.close()
        return ours, process

    def give(self, cell: CellSpec) -> None:
        """Have it train a cell; if it is dead by now, `take` will tell."""
        self.cell = cell
        try:
            self.connection.send(cell)
        except OSError:
            return

    def take(self) -> Tick | CellRecord | _End:
        """What it has to say; after an end it is to be restarted or stopped."""
        try:
            event: Tick | CellRecord | _End = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(END_S)
            code = self.process.exitcode
            hint = f" (hint: {KILLED}, and so do fewer --workers)" if hint_on_end(code) else ""
            return _End(f"its process ended: {end_of(code)}{hint}")
        if isinstance(event, CellRecord):
            self.cell = None
        return event

    def restart(self) -> None:
        """A new process in place of a dead one."""
        self.stop()
        self.cell = None
        self.connection, self.process = self._start()

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        if self.process.pid is not None:
            with contextlib.suppress(AttributeError, OSError):  # no groups here, or it is gone, or leads none yet
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    connections = {worker.connection: worker for worker in workers}
    return [connections[ready] for ready in wait(list(connections)) if isinstance(ready, Connection)]


def _work(connection: Connection, device: str, saved: _Saved, folder: str) -> None:
    """A worker's life: take a cell, train it, tell; until the pipe closes, or its device no longer answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    os.environ.pop(_SAFE_PATH, None)  # what the user's module starts is started as ever
    _end_with_parent()
    if not answers(device):
        connection.send(_End(f"{device} does not answer", started=False))
        return
    data, pid = _load(saved), os.getpid()
    while True:
        try:
            cell: CellSpec = connection.recv()
        except (EOFError, OSError):
            return
        kept = FileCheckpoint(Path(folder), cell.identity)
        try:
            record = train(cell, data[cell.fingerprint], checkpoint=kept, report=connection.send, device=device)
        except DeviceLost as lost:
            connection.send(_End(lost.message))  # and no record: the cell is another process's to try
            return
        end_if_copy_of(pid)
        connection.send(record)


def _end_with_parent() -> None:
    """A killed parent stops nobody, and in the middle of an epoch a worker does not look at its pipe."""
    parent = multiprocessing.parent_process()
    if parent is None or not hasattr(os, "setpgrp"):  # Windows
        return
    os.setpgrp()  # what it starts ends with it
    end_with(parent.sentinel)


_SAFE_PATH = "PYTHONSAFEPATH"


@contextmanager
def _safe_path() -> Iterator[None]:
    """What `multiprocessing` starts is `python -c`, which would look for Python's own modules in the current folder."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


_Saved = dict[str, tuple[dict[str, Any], dict[str, str]]]
"""By fingerprint, the small fields of `Arrays`, and the files of its arrays."""


def _save(data: Subsets, folder: Path) -> _Saved:
    """The arrays as files that every worker maps into memory, so that there is one copy of each."""
    files: dict[int, str] = {}
    saved: _Saved = {}
    for fingerprint, subset in data.items():
        small, large = subset.parts()
        for values in large.values():
            if id(values) not in files:
                files[id(values)] = str(folder / f"{len(files)}.npy")
                np.save(files[id(values)], values)
        saved[fingerprint] = small, {name: files[id(values)] for name, values in large.items()}
    return saved


def _load(saved: _Saved) -> Subsets:
    # "c": private copies of pages that are written to, which none is; torch wants memory it could write to.
    return {
        fingerprint: Arrays(**small, **{name: np.load(file, mmap_mode="c") for name, file in files.items()})
        for fingerprint, (small, files) in saved.items()
    }


def _failed(cell: CellSpec, reason: str) -> CellRecord:
    return CellRecord(cell=cell, identity=cell.identity, status="failed", reason=reason)
