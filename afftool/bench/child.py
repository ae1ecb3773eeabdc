"""A case in a fresh process, timed there while this one sleeps.

`Isolated` starts `python -m afftool.bench.child`, sends the case's spec, and is then a contestant like any other: it
asks for a sample and blocks until the answer comes. So contestants in processes of their own take turns in rounds too.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from afftool.bench.entry import EagerOutputs, Entrant, enter
from afftool.build import build_case
from afftool.measure.time.contestant import Sample, clock_for
from afftool.process import Child, serve
from afftool.record import Cache, Record
from afftool.spec import CaseSpec


def enter_child(spec: CaseSpec, record: Record, *, measures: Collection[str], cache: Cache, threads: int) -> Entrant:
    """As `afftool.bench.entry.enter`, in a process of its own with so many threads.

    Raises what `enter` does, as told by the process: `ChildFailed`, or `ChildEnded`.
    """
    child = Isolated(spec, record, measures=measures, cache=cache, threads=threads)
    return Entrant(child, child.record, child.close, child.pid)


class Isolated:
    """A case under one backend in a process of its own, and its record as that process fills it in."""

    def __init__(
        self,
        spec: CaseSpec,
        record: Record,
        *,
        measures: Collection[str],
        cache: Cache = "warm",
        threads: int | None = None,
    ) -> None:
        self._child = Child("afftool.bench.child")
        self.pid = self._child.pid
        try:
            answer = self._child.ask(
                "enter",
                spec=spec.fields(),
                record=record.to_dict(),
                measures=sorted(measures),
                cache=cache,
                threads=threads,
                path=sys.path,
            )
        except BaseException:
            self.close()
            raise
        self.record = Record.from_dict(answer["record"])

    def sample(self, steps: int) -> Sample:
        """Have one sample taken."""
        return Sample(**self._child.ask("sample", steps=steps)["sample"])

    def split(self, steps: int) -> Mapping[str, float]:
        """Have the parts of a step timed."""
        parts: dict[str, float] = self._child.ask("split", steps=steps)["parts"]
        return parts

    def move(self) -> None:
        """Have its data moved."""
        self._child.ask("move")

    def close(self) -> None:
        """End the process and everything it started."""
        self._child.stop()


class _Inside:
    """The child's half."""

    def __init__(self) -> None:
        self._entrant: Entrant | None = None

    def enter(
        self,
        spec: Mapping[str, Any],
        record: dict[str, Any],
        measures: Sequence[str],
        cache: Cache,
        threads: int | None,
        path: Sequence[str],
    ) -> dict[str, Any]:
        sys.path[:] = path
        if threads:
            torch.set_num_threads(threads)
        case = build_case(CaseSpec.from_fields(spec))
        clock, eager = clock_for(case.spec.device), EagerOutputs(case)
        known = Record.from_dict(record)
        self._entrant = enter(case, known, eager=eager, measures=measures, clock=clock, cache=cache)
        return {"record": self._entrant.record.to_dict()}

    def sample(self, steps: int) -> dict[str, Any]:
        assert self._entrant
        return {"sample": asdict(self._entrant.contestant.sample(steps))}

    def split(self, steps: int) -> dict[str, Any]:
        assert self._entrant
        return {"parts": dict(self._entrant.contestant.split(steps))}

    def move(self) -> dict[str, Any]:
        assert self._entrant
        self._entrant.contestant.move()
        return {}


if __name__ == "__main__":
    inside = _Inside()
    serve({"enter": inside.enter, "sample": inside.sample, "split": inside.split, "move": inside.move})
