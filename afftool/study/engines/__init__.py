"""Where cells are trained. An engine yields what happens; the caller stores it. All give the same records."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from afftool.errors import SpecError
from afftool.registry import unknown

if TYPE_CHECKING:
    from afftool.study.plan import Plan
    from afftool.study.run import Engine

NAMES = ("local", "ray")


def check_engine(name: str, *, workers: int | None, address: str | None, gpus: float | None) -> None:
    """Refuse an engine and options that do not go together, before any work. Raises `UnknownName` or `SpecError`."""
    if name not in NAMES:
        raise unknown("engine", name, NAMES)
    if workers is not None and workers < 0:
        raise SpecError(f"--workers {workers} is too few", hint="0 trains in this process, 1 in one of its own")
    if name != "ray" and (address is not None or gpus is not None):
        raise SpecError("--address and --gpus are Ray's", hint="add --engine ray")
    if name == "ray":
        from afftool.extras import need

        need("ray", "ray")


def build_engine(
    name: str, plan: Plan, *, device: str, workers: int | None, address: str | None, gpus: float | None
) -> Engine:
    """The engine by name, on `device` (cpu, cuda or cuda:N), with as many workers as the machine carries by default."""
    cell = plan.cells[0][2]
    cores = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if name == "ray":
        from afftool.study.engines.ray import RayEngine

        return RayEngine(address=address, workers=workers, gpus=gpus or (1.0 if cell.device == "cuda" else 0.0))
    if workers == 0:
        from afftool.study.engines.here import run_here

        return run_here
    from afftool.study.engines.local import LocalEngine

    if cell.device == "cuda":
        from afftool.study.engines.gpus import devices

        return LocalEngine(devices(plan, device, workers, cores))
    return LocalEngine(("cpu",) * (workers or max(1, cores // cell.threads)))
