"""`torch.compile` with inductor in its three modes, each case compiled from nothing.

On CUDA two of the modes record CUDA graphs (inductor's trees), into which a step's inputs are copied at every call,
unless they are parameters. Whether a step replays any is counted, since inductor goes on without where it cannot.

The caches on disk are set aside while a case compiles, so `compile_s` is what a first use costs and not what is left
of it. What a process pays once (importing the compiler, its workers, the precompiled C++ headers) is paid before,
with a function of one line, and is part of no case.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from types import FunctionType
from typing import Any

import torch

from afftool.backends import Preparation, Prepared
from afftool.backends.getting_ready import first_steps, wait
from afftool.backends.outputs import Outputs
from afftool.backends.workload import Workload
from afftool.build import Case
from afftool.environment import cpp_compiler, has_triton
from afftool.errors import Unavailable
from afftool.scratch import scratch

CODE_ENTRIES = 256
"""Compiled entries a code object may hold; by dynamo's default of 8, many variants of one class would end up eager."""


def prepare_default(case: Case) -> Prepared:
    """Compile with inductor's defaults. Raises `Unavailable`."""
    return _prepare(case, "compile", "default")


def prepare_reduce_overhead(case: Case) -> Prepared:
    """Compile with CUDA graphs. Raises `Unavailable`, always on a CPU."""
    if not case.spec.device.startswith("cuda"):
        raise Unavailable(
            "compile-reduce-overhead replays CUDA graphs, and this case runs on the CPU",
            hint="use --device cuda where there is one; on the CPU it would only repeat `compile`",
        )
    return _prepare(case, "compile-reduce-overhead", "reduce-overhead")


def prepare_max_autotune(case: Case) -> Prepared:
    """Compile with kernels chosen by trial; on CUDA with CUDA graphs too. Raises `Unavailable`."""
    return _prepare(case, "compile-max-autotune", "max-autotune")


def check_compiler(device: str) -> None:
    """Raise `Unavailable` where inductor could not compile for `device`."""
    if not torch._dynamo.is_dynamo_supported():  # type: ignore[attr-defined]
        raise Unavailable(
            "torch.compile does not support this Python or platform", hint="use a Python that this torch compiles for"
        )
    if cpp_compiler() is None:
        raise Unavailable(
            "torch.compile needs a C++ compiler and finds none",
            hint="install g++ or clang++ (Debian: apt install g++), or name one in CXX",
        )
    if device.startswith("cuda") and not has_triton():
        raise Unavailable("torch.compile needs triton for CUDA", hint="pip install triton")


def _prepare(case: Case, backend: str, mode: str) -> Prepared:
    """Compile the case and run it until nothing is compiled any more. Raises `Unavailable` or `Rejected`."""
    device = case.spec.device
    graphed = device.startswith("cuda") and mode != "default"
    check_compiler(device)
    _start_compiler(device, mode)
    work = Workload(case)
    random = work.draws_random_numbers()
    counts = _Counts()
    with _from_nothing():
        work.forward = _compile(work, mode=mode)
        preparation = first_steps(work.run, device, compilations, captures=graphed)
        preparation = counts.added_to(preparation, graphed=graphed)
    if graphed:
        with replays_counted() as replays:
            work.run(1)
        preparation = dataclasses.replace(preparation, cuda_graphs=len(replays))

    def outputs(seed: int) -> Outputs:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return _outputs_with_eager_randomness(case, mode, seed) if random else work.outputs(seed)

    return Prepared(
        backend=backend,
        repeat=work.repeat,
        mode=work.mode,
        restore=work.restoring,
        workload=work,
        parts=work.parts,
        outputs=outputs,
        preparation=preparation,
        lacks=_missing_graphs(preparation, counts.skip_reasons()) if graphed else None,
        compilations=compilations,
        move=work.move_tensors,
        close=lambda: wait(device),
    )


def _compile(work: Workload, **options: Any) -> Callable[..., Any]:
    return torch.compile(_own_code(work.module), **options)


def _outputs_with_eager_randomness(case: Case, mode: str, seed: int) -> Outputs:
    """The outputs of a module that draws random numbers, compiled once more so that it draws the ones eager draws."""
    options = {**torch._inductor.list_mode_options(mode), "fallback_random": True}
    work = Workload(case)
    with _from_nothing():
        work.forward = _compile(work, options=options)
        return work.outputs(seed)


_names = count()


def _own_code(module: torch.nn.Module) -> Callable[..., Any]:
    """`module` as a function whose code object nobody shares.

    Dynamo keeps what it compiled on code objects and tries one entry after another; on the shared code of
    `nn.Module.__call__` every case would pay for the guards of those compiled before it.
    """

    def forward(*inputs: Any) -> Any:
        return module(*inputs)

    name = f"case_{next(_names)}"
    return FunctionType(forward.__code__.replace(co_name=name), globals(), name, None, forward.__closure__)


@contextmanager
def _from_nothing() -> Iterator[None]:
    """Compile with empty caches on disk and no eager fallback after a few variants; however it ends, they are gone."""
    from torch._inductor import select_algorithm
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir
    from torch._inductor.utils import fresh_cache

    select_algorithm.PRINT_AUTOTUNE = False  # its tables would tear the progress bar
    failed: Exception | None = None
    with scratch() as folder, fresh_cache(dir=folder), torch._dynamo.config.patch(recompile_limit=CODE_ENTRIES):
        try:
            yield
        except Exception as error:  # raised outside: torch keeps the caches of what failed, and says where
            failed = error
    with contextlib.suppress(OSError):  # the folder that torch makes for its headers, where it never came so far
        os.rmdir(default_cache_dir())
    if failed is not None:
        raise failed


@lru_cache
def _start_compiler(device: str, mode: str) -> None:
    """Compile a line of code, so that what a process pays once falls to no case."""
    with _from_nothing(), torch.inference_mode():
        torch.compile(lambda x: torch.relu(x) + 1, mode=mode)(torch.ones(64, device=device))
    wait(device)


def compilations() -> int:
    """How many frames this process has given to the compiler so far."""
    return int(_counters()["frames"]["total"])


def forget_compiled() -> None:
    """Drop everything compiled in this process; nothing prepared before may be run afterwards."""
    torch._dynamo.reset()


def _counters() -> Any:
    from torch._dynamo.utils import counters

    return counters


class _Counts:
    """What is compiled from its making on, as dynamo counts it."""

    def __init__(self) -> None:
        from torch._dynamo.utils import graph_break_reasons

        self._start_us = time.time_ns() // 1000
        self._breaks_before = len(graph_break_reasons)
        self._hits_before = _cache_hits()
        self._skips_before = _skipped_graphs()

    def added_to(self, preparation: Preparation, *, graphed: bool) -> Preparation:
        """`preparation` with breaks (by the line they happen at, however often it is traced), guards, cache hits.

        Graphs without a CUDA graph are counted where the code was to be `graphed`; elsewhere they mean nothing.
        """
        from torch._dynamo.utils import graph_break_reasons

        breaks = [
            r.user_stack[-1] for r in graph_break_reasons[self._breaks_before :] if r.graph_break and r.user_stack
        ]
        return dataclasses.replace(
            preparation,
            graph_breaks=len({(frame.filename, frame.lineno) for frame in breaks}),
            guards=sum(metrics.guard_count or 0 for metrics in self._compiled()),
            compile_cache="warm" if _cache_hits() > self._hits_before else "cold",
            skipped_graphs=_skipped_graphs() - self._skips_before if graphed else None,
        )

    def skip_reasons(self) -> list[str]:
        """Why inductor made no CUDA graph of what it compiled, as far as it says so, each reason once."""
        said = [getattr(metrics, "cudagraph_skip_reason", None) for metrics in self._compiled()]
        reasons = (text.splitlines()[0].replace(_SKIPPING, "").split(". Found from")[0] for text in said if text)
        return list(dict.fromkeys(reason.strip() for reason in reasons))

    def _compiled(self) -> list[Any]:
        from torch._dynamo.utils import get_compilation_metrics

        return [m for m in get_compilation_metrics() if (m.start_time_us or 0) >= self._start_us]


_SKIPPING = "skipping cudagraphs due to "
"""How inductor's reasons begin, sometimes twice."""


def _skipped_graphs() -> int:
    """How many graphs inductor has left without a CUDA graph; it does not count those it has no partition for."""
    return int(_counters()["inductor"]["cudagraph_skips"])


@contextmanager
def replays_counted() -> Iterator[list[torch.cuda.CUDAGraph]]:
    """Collect the CUDA graphs that are replayed in the `with` block, by whomever."""
    replayed: list[torch.cuda.CUDAGraph] = []
    replay = torch.cuda.CUDAGraph.replay

    def noting(graph: torch.cuda.CUDAGraph) -> None:
        replayed.append(graph)
        replay(graph)

    torch.cuda.CUDAGraph.replay = noting  # type: ignore[method-assign, assignment]
    try:
        yield replayed
    finally:
        torch.cuda.CUDAGraph.replay = replay  # type: ignore[method-assign]


def _missing_graphs(preparation: Preparation, reasons: list[str]) -> str | None:
    """What to say of a row whose steps run without a CUDA graph, in whole or in part."""
    why = f" ({'; '.join(reasons)})" if reasons else ""
    if not preparation.cuda_graphs:
        return f"no CUDA graph in a step: inductor made none{why}"
    if preparation.skipped_graphs:
        return f"CUDA graphs in part: inductor left {preparation.skipped_graphs} of its graphs without one{why}"
    return None


def _cache_hits() -> int:
    counters = _counters()
    return int(counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"])
