"""Runs a case under torch.profiler, with every module's forward marked by its path, and writes what it saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from afftool import backends
from afftool.backends.getting_ready import wait
from afftool.backends.workload import OWN_INPUTS, random_state_kept
from afftool.build import Case
from afftool.errors import Unavailable
from afftool.measure.running import followed
from afftool.profile.trace import MODULE

PROFILER_WARMUP = 2
"""Steps with the profiler on whose events are thrown away: its own start-up belongs to nobody's step."""


@dataclass(frozen=True)
class Captured:
    """What a reader of a trace should know, and what share of a step's outputs and gradients is infinite or NaN."""

    notes: list[str]
    nonfinite_share: float


def capture(case: Case, backend: str, path: Path, *, steps: int = 5, warmup: int = 5) -> Captured:
    """Trace `steps` steps of a case and write them to `path` (`.json` or `.json.gz`).

    Before the trace come `warmup` steps without the profiler (compilation, autotuning, caches) and a few with it. In
    eager mode each module's forward is marked by its path; under a compiler there are no modules inside, but on the
    CPU its fused kernels are timed. Raises `Unavailable` where this machine cannot run the backend.
    """
    on_cuda = case.spec.device.startswith("cuda")
    activities = [ProfilerActivity.CPU]
    notes = []
    if on_cuda:
        if ProfilerActivity.CUDA not in torch.profiler.supported_activities():  # type: ignore[no-untyped-call]
            raise Unavailable("this PyTorch was built without CUPTI, so it sees no kernels", hint="use --device cpu")
        activities.append(ProfilerActivity.CUDA)
    with ExitStack() as stack:
        if backend != "eager":
            stack.enter_context(_kernels_timed())
            notes.append(f"Under {backend} there are no modules inside to be seen; profile eager for a module table.")
        prepared = backends.load(backend)(case)
        stack.callback(prepared.close)
        if backend == "eager" and prepared.workload is not None:
            stack.enter_context(annotated(prepared.workload.module))  # a copy of the case's: what really runs
        prepared.run(warmup)
        wait(case.spec.device)
        with profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=PROFILER_WARMUP, active=steps, repeat=1),
            record_shapes=True,
            profile_memory=True,
        ) as profiler:
            for step in range(1, PROFILER_WARMUP + steps + 1):
                prepared.step()
                # A kernel belongs to the trace by when it runs, not by when it was launched: those of a warm-up step
                # must not run into it, and the last step's must be done before `profiler.step()` ends it. Torch waits
                # for the current device alone. Between the traced steps nobody waits, as nobody does in a loop.
                if step <= PROFILER_WARMUP or step == PROFILER_WARMUP + steps:
                    wait(case.spec.device)
                profiler.step()
        with random_state_kept(case):
            nonfinite = prepared.outputs(OWN_INPUTS).nonfinite_share
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
    return Captured(notes, nonfinite)


def _kernels_timed() -> Any:
    """Inductor's CPU kernels show in a trace only if they are compiled to say so."""
    import torch._inductor.config as inductor

    return inductor.patch({"cpp.enable_kernel_profile": True})


@contextmanager
def annotated(module: nn.Module) -> Iterator[None]:
    """While open, each call of `module` and of its submodules is a block named `nn.Module: path (Type)`.

    The module itself has the path `.`; hooks only, nothing about it changes and all are gone afterwards.
    """
    names = {path: f"{MODULE}{path or '.'} ({type(part).__name__})" for path, part in module.named_modules()}
    blocks: list[Any] = []

    def enter(path: str) -> None:
        block = record_function(names[path])
        block.__enter__()  # type: ignore[no-untyped-call]
        blocks.append(block)

    def leave(_path: str, _inputs: Any, _output: Any) -> None:
        blocks.pop().__exit__(None, None, None)

    with followed(dict(module.named_modules()), enter=enter, leave=leave, around_hooks=True):
        yield
