"""How a case is executed: each backend is a function `prepare(case) -> Prepared` named in `afftool.catalog`.

A backend works on its own copy of the case's module and inputs, so that preparing, checking and timing it leave the
case, and every other backend, as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from afftool import catalog, registry

if TYPE_CHECKING:
    from afftool.backends.outputs import Outputs
    from afftool.backends.workload import Workload
    from afftool.build import Case


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What it took to get ready. Seconds of wall time, the device waited for; None where there is no such thing.

    `first_call_s` is the first step; `compile_s` what of it (and of any later step that compiled) exceeds a steady
    step; `recompiles` are compilations after the first step. `compile_cache` is warm if any part of the compilation
    came from a cache, so that `compile_s` is not that of a first use. `cuda_graphs` are replayed in a step;
    `skipped_graphs` are graphs of the compiler that it was to turn into CUDA graphs and did not.
    """

    first_call_s: float
    compile_s: float | None = None
    compile_cache: Literal["cold", "warm"] | None = None
    capture_s: float | None = None
    graph_breaks: int | None = None
    guards: int | None = None
    recompiles: int | None = None
    cuda_graphs: int | None = None
    skipped_graphs: int | None = None


def _never() -> int:
    return 0


def _nothing() -> None:
    return None


def _stays() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A case ready to be run again and again.

    `run(n)` makes n steps and does not wait for the device. A step is a forward pass in inference mode, or forward,
    backward and optimizer step. Who times steps enters `mode()`, the context they run in, before the clock starts, and
    calls `repeat(n)`, which is all that `run` does inside it where there is nothing to `restore`. That puts back the
    inputs that the module writes into, in the same mode, and is None where it writes into none; `run` does so before
    each step, and who times steps leaves its time out. `parts` are the callables that a training step consists of, in
    their order. `outputs(seed)` makes one step from the case's initial state and tells what it left behind.
    `compilations()` counts what this process has compiled so far. `move()` puts the case elsewhere in memory, where
    that can matter and is allowed, and says whether it did. `workload` holds the tensors that the steps use. `lacks`
    says what the backend promises and this case has not, and why. `library_bytes` of its private pools are workspace
    of CUDA's libraries, which is no case's memory. `close()` lets go of what would otherwise stay.
    """

    backend: str
    repeat: Callable[[int], None]
    outputs: Callable[[int], Outputs]
    preparation: Preparation
    workload: Workload | None = None
    mode: Callable[[], AbstractContextManager[Any]] = nullcontext
    restore: Callable[[], None] | None = None
    parts: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    compilations: Callable[[], int] = _never
    move: Callable[[], bool] = _stays
    lacks: str | None = None
    library_bytes: int = 0
    close: Callable[[], None] = _nothing

    def run(self, times: int) -> None:
        """Make `times` steps."""
        with self.mode():
            run_restored(self.repeat, self.restore, times)

    def step(self) -> None:
        """Make one step."""
        self.run(1)


def run_restored(repeat: Callable[[int], None], restore: Callable[[], None] | None, times: int) -> None:
    """Make `times` steps, each on the same inputs: after `restore` where there is one."""
    if restore is None:
        repeat(times)
        return
    for _ in range(times):
        restore()
        repeat(1)


class Prepare(Protocol):
    """Gets a case ready. Raises `Unavailable` where this machine cannot run it that way."""

    def __call__(self, case: Case) -> Prepared:
        """Get `case` ready."""


def load(name: str) -> Prepare:
    """The backend called `name`. Raises `UnknownName`."""
    if name not in catalog.BACKENDS:
        raise registry.unknown("backend", name, catalog.BACKENDS)
    backend: Prepare = registry.load(catalog.BACKENDS[name].path)
    return backend
