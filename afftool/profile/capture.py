"""Runs a case under torch.profiler, with every module's forward marked by its path, and writes what it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from afftool.written import replacing

PROFILER_WARMUP = 2
"""Steps with the profiler on whose events are thrown away: its own start-up belongs to nobody's step."""


@dataclass(frozen=True)
class Captured:
    """What a reader of a trace should know, and what share of a step's outputs and gradients is infinite or NaN."""

    notes: list[str]
    nonfinite_share: float


def capture(
    case: Case,
    backend: str,
    path: Path,
    *,
    steps: int = 5,
    warmup: int = 5,
    when_warm: Callable[[], None] = lambda: None,
) -> Captured:
    """Trace `steps` steps of a case and write them to `path` (`.json` or `.json.gz`).

    Before the trace come `warmup` steps without the profiler (compilation, autotuning, caches), a call of `when_warm`,
    and a few steps with it. In eager mode each module's forward is marked by its path; under a compiler there are no
    modules inside, but on the CPU its fused kernels are timed. Raises `Unavailable` where this machine cannot run the
    backend.
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
        work = prepared.workload
        fresh: list[tuple[torch.Tensor, ...]] = []
        if prepared.restore and work is not None:
            names = " and ".join(case.written.values())
            notes.append(f"It writes into its input {names}: each step sees the same values again.")
            if backend == "cudagraph":  # its graphs know their inputs by address
                notes[-1] += " Putting them back is in the trace, as copies outside of any graph."
            else:
                fresh = work.copies_of_inputs(PROFILER_WARMUP + steps)
        prepared.run(warmup)
        wait(case.spec.device)
        when_warm()
        with profile(
            activities=activities,
            schedule=schedule(wait=0, warmup=PROFILER_WARMUP, active=steps, repeat=1),
            record_shapes=True,
            profile_memory=True,
        ) as profiler:
            for step in range(1, PROFILER_WARMUP + steps + 1):
                if work is not None and fresh:  # putting them back would be in the trace
                    work.inputs = fresh.pop()
                    with prepared.mode():
                        prepared.repeat(1)
                else:
                    prepared.step()
                # A kernel belongs to the trace by when it runs, not by when it was launched: those of a warm-up step
                # must not run into it, and the last step's must be done before `profiler.step()` ends it. Torch waits
                # for the current device alone. Between the traced steps nobody waits, as nobody does in a loop.
                if step <= PROFILER_WARMUP or step == PROFILER_WARMUP + steps:
                    wait(case.spec.device)
                profiler.step()
        with random_state_kept(case):
            nonfinite = prepared.outputs(OWN_INPUTS).nonfinite_share
    with replacing(path) as part:
        profiler.export_chrome_trace(str(part))
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
