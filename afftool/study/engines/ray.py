"""Cells on a Ray cluster, fractions of a GPU included. The extra `ray` brings it.

Checkpoints travel through an actor on the driver's node into the driver's folder, so a cell whose worker or node
is gone, or whose device stopped answering, goes on from its last epoch elsewhere, without a shared file system. Ray
retries the task; the record is taken once.
"""

from __future__ import annotations

import dataclasses
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afftool.device import count_gpus
from afftool.environment import cores
from afftool.errors import DeviceLost, LoadError
from afftool.registry import need
from afftool.spec import FusionSpec, HostSpec, targets_of
from afftool.study.cells import CellRecord, CellSpec, FileCheckpoint
from afftool.study.code import own_modules
from afftool.study.engines.cluster import Node, check_room, nodes_alive, nodes_at

if TYPE_CHECKING:
    from afftool.study.arrays import Subsets
    from afftool.study.train import Tick

RETRIES = 5
"""How often Ray tries a cell again whose worker, node or device is gone."""
POLL_S = 0.5


class Board:
    """An actor on the driver's node: holds what workers tell until the driver asks, and keeps their checkpoints."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._ticks: list[Any] = []

    def tell(self, tick: Any) -> None:
        """Keep one tick for the driver."""
        self._ticks.append(tick)

    def told(self) -> list[Any]:
        """All ticks since the last time."""
        ticks, self._ticks = self._ticks, []
        return ticks

    def load(self, identity: str) -> bytes | None:
        """A cell's last checkpoint."""
        return FileCheckpoint(self._folder, identity).load()

    def save(self, identity: str, packed: bytes) -> None:
        """Keep a cell's checkpoint."""
        FileCheckpoint(self._folder, identity).save(packed)


@dataclasses.dataclass(frozen=True)
class RemoteCheckpoint:
    """A checkpoint kept by the board; `save` returns when it is safe."""

    board: Any
    identity: str

    def load(self) -> bytes | None:
        """The last one saved, or None."""
        import ray

        packed: bytes | None = ray.get(self.board.load.remote(self.identity))
        return packed

    def save(self, packed: bytes) -> None:
        """Keep this one instead."""
        import ray

        ray.get(self.board.save.remote(self.identity, packed))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Trains on the cluster at `address`, at most `workers` cells at a time (None: as many as fit), `gpus` a cell.

    Without an address the cluster of RAY_ADDRESS, or else one started here with room for `workers` cells. A cluster
    this process is already connected to is used as it is, and left connected.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float = 0.0

    @property
    def _place(self) -> str | None:
        return self.address or os.environ.get("RAY_ADDRESS") or None

    def nodes(self) -> list[Node]:
        """What there is to train on, asked or foreseen without starting anything. Raises `LoadError`."""
        ray = need("ray", "ray")
        if ray.is_initialized():
            return nodes_alive(ray.nodes())
        return nodes_at(self._place) if self._place else [Node(cores(), count_gpus())]

    def __call__(self, cells: Sequence[CellSpec], data: Subsets, folder: Path) -> Iterator[Tick | CellRecord]:
        """Yield ticks as epochs end and records as cells end, in no fixed order."""
        if not cells:
            return
        ray = need("ray", "ray")
        ours = not ray.is_initialized()
        if ours:
            self._connect(ray, cells)
        try:
            yield from self._run(ray, cells, data, folder)
        finally:
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any, cells: Sequence[CellSpec]) -> None:
        environment = {"py_modules": paths} if (paths := own_paths(cells)) else {}
        room = self.workers * max(cell.threads for cell in cells) if self.workers else cores()
        own = {} if self._place else {"num_cpus": room, "num_gpus": count_gpus(), "include_dashboard": False}
        place = self._place or "local"  # None would join any cluster that runs on this machine
        try:
            ray.init(address=place, runtime_env=environment, log_to_driver=False, logging_level="ERROR", **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise LoadError(
                f"no Ray cluster at {place!r}: {error}",
                hint="start one with `ray start --head`, or leave --address out to start one here",
            ) from error

    def _run(self, ray: Any, cells: Sequence[CellSpec], data: Subsets, folder: Path) -> Iterator[Tick | CellRecord]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        check_room(nodes_alive(ray.nodes()), threads=max(cell.threads for cell in cells), gpus=self.gpus)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote(str(folder.absolute()))
        shared = _put(ray, data)
        # A GPU's process ends with its cell, and so does what it held or broke of the GPU. Ray's own default, which it
        # leaves out where `options` name the GPUs.
        task = ray.remote(max_calls=1 if self.gpus else 0, retry_exceptions=[DeviceLost])(_train_remotely)
        queue, waiting = deque(cells), dict[Any, CellSpec]()
        try:
            while queue or waiting:
                while queue and len(waiting) < (self.workers or len(cells)):
                    cell = queue.popleft()
                    placed = task.options(num_cpus=cell.threads, num_gpus=self.gpus, max_retries=RETRIES)
                    small, large = shared[cell.fingerprint]
                    waiting[placed.remote(cell.to_dict(), board, small, tuple(large), *large.values())] = cell
                done, _ = ray.wait(list(waiting), timeout=POLL_S)
                yield from ray.get(board.told.remote())  # ticks before records, so that a cell's end is its last event
                for reference in done:
                    yield _result(ray, reference, waiting.pop(reference))
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)
            ray.kill(board)


def own_paths(cells: Sequence[CellSpec]) -> list[str]:
    """Files and packages of the user's own that the cells need and that are installed nowhere: sent to the workers."""
    specs = [s for cell in cells for s in (FusionSpec.parse(cell.fusion), HostSpec.parse(cell.host))]
    found = own_modules(set(targets_of(*specs)))
    return [str(root) for module in found for root in module.roots]


def _put(ray: Any, data: Subsets) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """By fingerprint, the small fields of `Arrays`, and references to its arrays: each lies in the cluster once."""
    references: dict[int, Any] = {}
    shared = {}
    for fingerprint, subset in data.items():
        small, large = subset.parts()
        for values in large.values():
            if id(values) not in references:
                references[id(values)] = ray.put(values)
        shared[fingerprint] = small, {name: references[id(values)] for name, values in large.items()}
    return shared


def _train_remotely(
    cell_fields: dict[str, Any], board: Any, small: dict[str, Any], names: tuple[str, ...], *arrays: Any
) -> dict[str, Any]:
    """One cell, on whatever node Ray chose; a GPU is the one that Ray made visible. `names` are those of the arrays."""
    from afftool.study.arrays import Arrays
    from afftool.study.train import train

    cell = CellSpec.from_dict(cell_fields)
    if reason := other_bits(cell):
        return CellRecord(cell=cell, identity=cell.identity, status="failed", reason=reason).to_dict()
    record = train(
        cell,
        # Copies: Ray's arrays are read-only views of shared memory, which torch cannot wrap.
        Arrays(**small, **{name: array.copy() for name, array in zip(names, arrays, strict=True)}),
        checkpoint=RemoteCheckpoint(board, cell.identity),
        report=lambda tick: board.tell.remote(tick),
    )
    return record.to_dict()


def other_bits(cell: CellSpec) -> str | None:
    """Why this process would not train the cell to the same bits, as the cell promises; None if it would."""
    import torch

    here = {"torch": str(torch.__version__)}
    if cell.device == "cpu":
        here["capability"] = torch.backends.cpu.get_cpu_capability()
    for field, value in here.items():
        if getattr(cell, field) != value:
            kind = {"torch": "torch", "capability": "vector instructions"}[field]
            return f"a node has {kind} {value}, the cell was planned for {getattr(cell, field)}"
    return None


def _result(ray: Any, reference: Any, cell: CellSpec) -> CellRecord:
    try:
        return CellRecord.from_dict(ray.get(reference))
    except ray.exceptions.RayError as error:
        why = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        return CellRecord(
            cell=cell,
            identity=cell.identity,
            status="failed",
            reason=f"Ray gave up on it: {type(why).__name__}: {str(why).splitlines()[0]}",
        )
