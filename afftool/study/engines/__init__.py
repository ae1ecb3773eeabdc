"""Where cells are trained. An engine yields what happens; the caller stores it. All give the same records."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from afftool.device import check_device, resolve_devices
from afftool.environment import cores
from afftool.errors import SpecError
from afftool.registry import need, unknown
from afftool.spec.amounts import MOST_PROCESSES, check_whole
from afftool.study.engines.cluster import check_address, check_room

if TYPE_CHECKING:
    from afftool.study.plan import Plan
    from afftool.study.run import Engine

NAMES = ("local", "ray")


def check_engine(name: str, *, workers: int | None, address: str | None, gpus: float | None) -> None:
    """Refuse an engine and options that do not go together, before any work. Raises `UnknownName` or `SpecError`."""
    if name not in NAMES:
        raise unknown("engine", name, NAMES)
    if workers is not None:
        hint = "0 trains in this process, 1 in one of its own"
        check_whole("--workers", workers, least=0, most=MOST_PROCESSES, hint=hint)
    if name != "ray" and (address is not None or gpus is not None):
        raise SpecError("--address and --gpus are Ray's", hint="add --engine ray")
    if name == "ray":
        if workers == 0:
            raise SpecError("--workers 0 trains in this process, Ray in others", hint="use 1 or more, or leave it out")
        if address is not None:
            check_address(address)
        if gpus is not None:
            _check_gpus(gpus)
        need("ray", "ray")


def device_of(name: str, word: str, gpus: float | None) -> str:
    """Where cells run, from the word for a device: `cpu`, `cuda` or `cuda:N`.

    Under Ray a GPU is the cluster's to give, so the machine that asks needs none. Raises `SpecError`.
    """
    if name != "ray":
        return resolve_devices(word)
    if check_device(word) == "cpu" and gpus:
        raise SpecError(f"--gpus {gpus:g} for cells on the CPU", hint="leave --gpus out, or use --device cuda")
    return "cuda" if gpus or word.startswith("cuda") else resolve_devices(word)


def check_cluster(
    name: str, *, device: str, threads: int, workers: int | None, address: str | None, gpus: float | None
) -> None:
    """Ask Ray's cluster, if that is the engine, whether it has room for a cell. Raises `SpecError` or `LoadError`."""
    if name != "ray":
        return
    from afftool.study.engines.ray import RayEngine

    share = _gpus(gpus, device)
    if device.startswith("cuda") and not share:
        raise SpecError("--gpus 0 leaves cells without the GPU they train on", hint="--gpus 0.25, or --device cpu")
    check_room(RayEngine(address=address, workers=workers, gpus=share).nodes(), threads=threads, gpus=share)


def build_engine(
    name: str, plan: Plan, *, device: str, workers: int | None, address: str | None, gpus: float | None
) -> Engine:
    """The engine by name, on `device` (cpu, cuda or cuda:N), with as many workers as the machine carries by default."""
    cell = plan.cells[0][2]
    if name == "ray":
        from afftool.study.engines.ray import RayEngine

        return RayEngine(address=address, workers=workers, gpus=_gpus(gpus, cell.device))
    from afftool.study.engines.local import LocalEngine, run_here

    if workers == 0:
        return partial(run_here, device=device)
    if cell.device == "cuda":
        from afftool.study.engines.gpus import devices

        return LocalEngine(devices(plan, device, workers, cores()))
    return LocalEngine(("cpu",) * (workers or max(1, cores() // cell.threads)))


def _gpus(asked: float | None, device: str) -> float:
    """GPUs a cell: a whole one for cells on a GPU if nothing is said."""
    return asked if asked is not None else 1.0 if device.startswith("cuda") else 0.0


def _check_gpus(gpus: float) -> None:
    """What Ray can count: nothing, a fraction down to 0.0001, or whole GPUs. Raises `SpecError`."""
    if not 0 <= gpus < math.inf or 0 < gpus < 1e-4 or (gpus > 1 and gpus % 1):
        raise SpecError(f"--gpus {gpus:g} is no share of a GPU and no number of them", hint="for example 0.25, 1 or 2")
