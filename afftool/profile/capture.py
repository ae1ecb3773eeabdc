"""Runs a case under torch.profiler and writes what it saw."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from afftool import backends
from afftool.build import Case
from afftool.errors import Unavailable
from afftool.profile.annotate import annotated

PROFILER_WARMUP = 2
"""Steps with the profiler on whose events are thrown away: its own start-up belongs to nobody's step."""


def capture(case: Case, backend: str, path: Path, *, steps: int = 5, warmup: int = 5) -> list[str]:
    """Trace `steps` steps of a case and write them to `path` (`.json` or `.json.gz`); return what a reader should know.

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
        if backend == "eager":
            stack.enter_context(annotated(case.module))
        else:
            stack.enter_context(_kernels_timed())
            notes.append(f"Under {backend} there are no modules inside to be seen; profile eager for a module table.")
        prepared = backends.load(backend)(case)
        stack.callback(prepared.close)
        prepared.run(warmup)
        _wait(case)
        with profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=PROFILER_WARMUP, active=steps, repeat=1),
            record_shapes=True,
            profile_memory=True,
        ) as profiler:
            for _ in range(PROFILER_WARMUP + steps):
                prepared.step()
                profiler.step()
            _wait(case)
    path.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(path))
    return notes


def _kernels_timed() -> Any:
    """Inductor's CPU kernels show in a trace only if they are compiled to say so."""
    import torch._inductor.config as inductor

    return inductor.patch({"cpp.enable_kernel_profile": True})


def _wait(case: Case) -> None:
    if case.spec.device.startswith("cuda"):
        torch.cuda.synchronize(case.spec.device)
