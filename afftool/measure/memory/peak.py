"""Memory of a case: the peak of a step, what it is made of, and what training keeps for the backward pass.

The peak is the allocator's own: everything the case needs, its parameters and inputs included, and nothing of its
neighbours nor of what CUDA's libraries take once a process. It is exact and the same every time. A step is that of
`afftool.backends.workload`: the last step's gradients are forgotten, forward, backward from a dense gradient, SGD
with momentum. The case is only read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from afftool.backends import Prepare, Prepared
from afftool.backends.workload import Workload, random_state_kept
from afftool.build import Case
from afftool.errors import Unavailable
from afftool.measure.memory.causes import Held, label, optimizer_state, output_addresses, sum_alive
from afftool.measure.memory.phases import watch
from afftool.measure.memory.saved import addresses, saved_by_graph, storage_bytes, watch_saved


@dataclass(frozen=True, kw_only=True)
class MemoryReading:
    """What a step needs, in bytes; None where there is no such thing.

    `peak_bytes` is the peak of a steady step and `cold_peak_bytes` that of getting there: copying, compiling,
    autotuning, capturing, the first step. `peak_parts_bytes` says what was alive at the steady peak, by cause
    (`causes.CAUSES`), and adds up to it; `workspace_bytes` is its part without a name of its own:
    intermediate results and the scratch of kernels. `saved_bytes` is what forward leaves for backward (see
    `saved.py`), `saved_by_module_bytes` the same by submodule. The others are totals, whenever they are
    alive. `graph_pool_bytes` is the private pool of CUDA graphs and part of the peak (inductor's has a workspace of
    cuBLAS in it). `reserved_bytes` is what CUDA's allocator had taken from the driver for the case at the most in a
    steady step, what is left unused of segments included; `requested_bytes` is the peak by what was asked for, where
    `peak_bytes` counts blocks (multiples of 512 bytes).
    """

    peak_bytes: int
    param_bytes: int
    cold_peak_bytes: int
    gradient_bytes: int | None = None
    optimizer_bytes: int | None = None
    saved_bytes: int | None = None
    workspace_bytes: int | None = None
    graph_pool_bytes: int | None = None
    reserved_bytes: int | None = None
    requested_bytes: int | None = None
    peak_parts_bytes: dict[str, int] | None = None
    saved_by_module_bytes: dict[str, int] | None = field(default=None, repr=False)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a record that this reading fills."""
        values = dataclasses.asdict(self)
        values.pop("saved_by_module_bytes")
        return values


def measure(case: Case, *, threads: int | None = 1) -> MemoryReading:
    """Memory of `case` run by eager PyTorch, by cause.

    On the CPU it is read with one thread unless `threads` says otherwise (None: as many as there are), so that
    scratch a kernel takes per thread does not make the peak a property of the machine. Raises `Unavailable` for a
    device without an allocator to ask, and `torch.OutOfMemoryError`.
    """
    device = _device(case)
    _ = case.written  # what finds it out is no part of the case's memory
    warm = partial(_warm_libraries, case)
    with _threads(threads if device.type == "cpu" else None), random_state_kept(case), watch(device, warm) as seen:
        with seen.stage("cold"):
            workload = Workload(case)
            saved = _first_step(workload, device)
        seen.settle(lambda: workload.run(1))
        before = Held.by(workload)
        with seen.stage("steady"), output_addresses(workload) as outputs:
            if workload.training:
                if restore := workload.restoring:
                    restore()
                for name, part in workload.parts.items():
                    with seen.recording.phase(name):
                        part()
            else:
                workload.run(1)
        after = Held.by(workload)
    peak = seen.peak("steady")
    parts = sum_alive(seen.timeline, label(seen.timeline, before, after, outputs))
    parts["workspace"] += peak - sum(parts.values())  # 0 on the CPU; on CUDA the peak is the statistics' own
    parameters = list(workload.module.parameters())
    return MemoryReading(
        peak_bytes=peak,
        cold_peak_bytes=seen.cold_peak("cold"),
        param_bytes=storage_bytes(parameters),
        gradient_bytes=storage_bytes(p.grad for p in parameters) if workload.training else None,
        optimizer_bytes=storage_bytes(optimizer_state(workload)) if workload.training else None,
        saved_bytes=sum(saved.values()) if saved is not None else None,
        workspace_bytes=parts["workspace"],
        reserved_bytes=seen.reserved("steady"),
        requested_bytes=seen.requested("steady"),
        peak_parts_bytes={cause: nbytes for cause, nbytes in parts.items() if nbytes},
        saved_by_module_bytes=saved,
    )


def observe(case: Case, prepare: Prepare) -> tuple[Prepared, MemoryReading]:
    """Prepare `case` under any backend and read its memory on the way: the prepared case, and its reading.

    Nothing is prepared twice, and the threads are the caller's. What is alive at the peak is not told apart, because a
    compiler gives no names to what it allocates; what is held is: parameters, gradients, the optimizer's state, the
    CUDA graphs' pool, and what autograd saves, which a captured graph alone does not show.
    """
    device = _device(case)
    _ = case.written  # as in `measure`
    with random_state_kept(case), watch(device, partial(_warm_libraries, case)) as seen:
        with seen.stage("cold"):
            prepared = prepare(case)
        seen.leave_out(prepared.library_bytes)
        seen.settle(lambda: prepared.run(1))
        with seen.stage("steady"):
            prepared.run(1)
    work = prepared.workload if case.spec.mode == "train" else None
    return prepared, MemoryReading(
        peak_bytes=seen.peak("steady"),
        cold_peak_bytes=seen.cold_peak("cold"),
        param_bytes=storage_bytes(case.module.parameters()),
        gradient_bytes=storage_bytes(p.grad for p in work.module.parameters()) if work else None,
        optimizer_bytes=storage_bytes(optimizer_state(work)) if work else None,
        saved_bytes=_saved_between_parts(case, prepared, device) if work else None,
        graph_pool_bytes=seen.graph_pool(),
        reserved_bytes=seen.reserved("steady"),
        requested_bytes=seen.requested("steady"),
    )


def _saved_between_parts(case: Case, prepared: Prepared, device: torch.device) -> int | None:
    """What is saved once more forward has run, before backward takes it; None where no graph of autograd is left."""
    work = prepared.workload
    assert work
    anyway = addresses((*work.module.parameters(), *work.module.buffers()))
    with random_state_kept(case):
        if prepared.restore:
            prepared.restore()
        prepared.parts["forward"]()
        saved = saved_by_graph(work.leaves, device, anyway) if work.leaves else None
        prepared.parts["backward"]()
    return saved


def _device(case: Case) -> torch.device:
    device = case.inputs[0].device
    if device.type not in ("cpu", "cuda"):
        raise Unavailable(f"no memory is measured on {device}", hint="use --device cpu or cuda")
    return device


def _warm_libraries(case: Case) -> None:
    """Make a step of the case, for which CUDA's libraries take what they keep."""
    with random_state_kept(case):
        Workload(case).run(1)


def _first_step(workload: Workload, device: torch.device) -> dict[str, int] | None:
    """Make the first step and tell what its forward saved, by module; None in inference, where nothing is."""
    if not workload.training:
        workload.run(1)
        return None
    with watch_saved(workload.module, device) as watched:
        workload.run_forward()
        saved = watched.by_module()
    workload.run_backward()
    workload.run_optimizer()
    return saved


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
