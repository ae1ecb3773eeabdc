"""What Python holds for the whole process, and what the system tells those that it starts."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from afftool.global_settings.setting import Setting, some

VARIABLES = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "DNNL_", "ONEDNN_", "MALLOC_", "LD_PRELOAD"),
    *("TORCH", "PYTORCH_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "TRITON_", "PYTHONHASHSEED"),
)
"""Environment variables that begin so decide how torch and what it calls compute, here or in a child process."""


_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Torch sets them itself when its compiler is loaded, to what it would use anyway."""


def pythons() -> Iterator[Setting]:
    """The settings of Python and of the process, as far as the system has them."""
    yield Setting("environment variables", _variables, _set_variables)
    yield Setting("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable())
    yield Setting("garbage collection's thresholds", gc.get_threshold, lambda three: gc.set_threshold(*three))
    yield Setting("Python's recursion limit", sys.getrecursionlimit, sys.setrecursionlimit)
    yield Setting("Python's switch interval", sys.getswitchinterval, sys.setswitchinterval)
    yield Setting("tracing of Python's calls", sys.gettrace, sys.settrace, some)
    yield Setting("profiling of Python's calls", sys.getprofile, sys.setprofile, some)
    yield Setting("warnings that raise", _raising, _set_raising, lambda filters: str(len(filters)))
    if hasattr(os, "sched_getaffinity"):
        yield Setting(
            "cores it may use", lambda: os.sched_getaffinity(0), lambda some: os.sched_setaffinity(0, some), _cores
        )
    if numpy := sys.modules.get("numpy"):
        yield Setting("NumPy's errors", numpy.geterr, lambda how: numpy.seterr(**how))
    if processes := sys.modules.get("multiprocessing"):
        start = partial(processes.get_start_method, allow_none=True)
        yield Setting("how processes start", start, partial(processes.set_start_method, force=True))
    if torch_processes := sys.modules.get("torch.multiprocessing"):
        put = torch_processes.set_sharing_strategy
        yield Setting("how tensors are shared", torch_processes.get_sharing_strategy, put)


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES) and name not in _CACHES}


def _set_variables(wanted: Mapping[str, str]) -> None:
    for name in _variables():
        if name not in wanted:
            del os.environ[name]
    os.environ.update(wanted)


def _raising() -> tuple[Any, ...]:
    return tuple(entry for entry in warnings.filters if entry[0] == "error")


def _set_raising(wanted: tuple[Any, ...]) -> None:
    warnings.filters[:] = [e for e in warnings.filters if e[0] != "error" or e in wanted]  # type: ignore[index]
    warnings._filters_mutated()  # type: ignore[attr-defined]


def _cores(some: Any) -> str:
    return f"{len(some)} ({', '.join(map(str, sorted(some)))})"
