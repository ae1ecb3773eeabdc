"""A case in a fresh process, timed there while this one sleeps.

`Isolated` starts `afftool.bench.worker`, sends the case's spec, and is then a contestant like any other: it asks for a
sample and blocks until the answer comes. So contestants in processes of their own take turns in rounds too. One that
hangs is ended after a while and fails alone; in this process nothing could end it.

Such a process either does all there is to do for a row (`enter`), or nothing but what a user's own script would
(`prepare`): build the module, make it ready, run it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afftool.bench.entry import Entrant
from afftool.measure.time.contestant import Sample
from afftool.process import Answer, Child, ChildSilent
from afftool.record import Cache, Record
from afftool.spec import CaseSpec

LEAST_WAIT_S = 60.0
"""Any answer may take that long: a machine that swaps, or does other work, is no hung kernel."""
TIMES_AS_LONG = 20.0
"""How many times longer than those before steps may take: clocks fall and neighbours come, but not by that."""


@dataclass
class Patience:
    """How long the processes of one bench are waited for, in seconds, and for how many it was in vain so far.

    Nobody knows how long a compilation takes: `ready_s` is for getting ready, and for the first sample as well. Then
    it is known how long a step takes. `now` is the clock that tells.
    """

    ready_s: float
    lost_s: float = 0.0
    now: Callable[[], float] = time.perf_counter

    def for_steps(self, steps: int, step_s: float | None) -> float:
        """The most seconds that so many steps may take where one took `step_s`, if any was made before."""
        return self.ready_s if step_s is None else max(LEAST_WAIT_S, TIMES_AS_LONG * step_s * steps)


def enter_child(
    spec: CaseSpec,
    record: Record,
    *,
    measures: Collection[str],
    cache: Cache,
    threads: int,
    patience: Patience,
) -> Entrant:
    """As `afftool.bench.entry.enter`, in a process of its own with so many threads.

    Raises what `enter` does, as told by the process: `ChildFailed`, `ChildEnded`, or `ChildSilent`.
    """
    child = Isolated(patience)
    try:
        entered = child.enter(spec, record, measures=measures, cache=cache, threads=threads)
    except BaseException:
        child.close()
        raise
    return Entrant(child, entered, child.close, child.pid)


class Isolated:
    """A case under one backend in a process of its own, which starts at once; it is entered or prepared first.

    Every question raises `ChildFailed` and `ChildEnded`, and `ChildSilent` where `patience` ends; the process is no
    more then.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._step_s: float | None = None
        self._child = Child("afftool.bench.worker")
        self.pid = self._child.pid

    def enter(self, spec: CaseSpec, record: Record, *, measures: Collection[str], cache: Cache, threads: int) -> Record:
        """Have the case built, made ready, compared and read; its record as far as it is known then."""
        answer = self._ask(
            "enter",
            self._patience.ready_s,
            hint=_COMPILES,
            spec=spec.fields(),
            record=record.to_dict(),
            measures=sorted(measures),
            cache=cache,
            threads=threads,
            path=sys.path,
        )
        return Record.from_dict(answer["record"])

    def prepare(self, spec: CaseSpec, backend: str, *, writes: Sequence[str], cache: Cache, threads: int) -> None:
        """Tell it to build the case, which `writes` into these inputs, and make it ready, without waiting for that."""
        self._child.send(
            "prepare",
            spec=spec.fields(),
            backend=backend,
            writes=list(writes),
            cache=cache,
            threads=threads,
            path=sys.path,
        )

    def wait(self) -> None:
        """Wait until what it was told is done."""
        self._answer(self._patience.ready_s, hint=_COMPILES)

    def sample(self, steps: int) -> Sample:
        """Have one sample taken."""
        started = self._patience.now()
        answer = self._ask("sample", self._patience.for_steps(steps, self._step_s), steps=steps)
        self._step_s = (self._patience.now() - started) / steps
        return Sample(**answer["sample"])

    def split(self, steps: int) -> Mapping[str, float]:
        """Have the parts of a step timed."""
        answer = self._ask("split", self._patience.for_steps(steps, self._step_s), steps=steps)
        parts: dict[str, float] = answer["parts"]
        return parts

    def singly(self, steps: int) -> Sequence[float]:
        """Have so many steps timed one by one."""
        answer = self._ask("singly", self._patience.for_steps(steps, self._step_s), steps=steps)
        times: list[float] = answer["times"]
        return times

    def move(self) -> None:
        """Have its data moved."""
        self._ask("move", self._patience.for_steps(1, self._step_s))

    def close(self) -> None:
        """End the process and everything it started."""
        self._child.stop()

    def _ask(self, verb: str, seconds: float, *, hint: str | None = None, **fields: Any) -> Answer:
        self._child.send(verb, **fields)
        return self._answer(seconds, hint=hint)

    def _answer(self, seconds: float, *, hint: str | None = None) -> Answer:
        try:
            return self._child.answer(timeout_s=seconds)
        except ChildSilent as silent:
            self._patience.lost_s += silent.seconds
            raise ChildSilent(silent.seconds, hint=hint or _HANGS) from None


_HANGS = "a kernel or a lock waits for ever; CUDA_LAUNCH_BLOCKING=1, --isolate none and `py-spy dump` show which"
_COMPILES = f"if it compiles that long, raise --timeout; else {_HANGS}"
