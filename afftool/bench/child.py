"""A case in a fresh process, timed there while this one sleeps.

`Isolated` starts `afftool.bench.worker`, sends the case's spec, and is then a contestant like any other: it asks for a
sample and blocks until the answer comes. So contestants in processes of their own take turns in rounds too.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping

from afftool.bench.entry import Entrant
from afftool.measure.time.contestant import Sample
from afftool.process import Child
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
        self._child = Child("afftool.bench.worker")
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
