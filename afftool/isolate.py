"""A case in a fresh process, timed there while this one sleeps.

`Isolated` starts `python -m afftool.isolate`, sends the case's spec, and is then a contestant like any other: it asks
for a sample and blocks until the answer comes. So contestants in processes of their own still take turns in rounds.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from afftool.measure.contestant import Sample
from afftool.process import Child, serve
from afftool.spec import CaseSpec

if TYPE_CHECKING:
    from afftool.entry import Entry


class Isolated:
    """A case under one backend in a process of its own.

    Making it raises what `afftool.entry.enter` does, as told by the process: `ChildFailed`, or `ChildEnded`.
    """

    def __init__(
        self,
        spec: CaseSpec,
        backend: str,
        *,
        measures: Collection[str],
        cache: str = "warm",
        threads: int | None = None,
    ) -> None:
        self._child = Child("afftool.isolate")
        self.pid = self._child.pid
        try:
            answer = self._child.ask(
                "enter",
                spec=spec.fields(),
                backend=backend,
                measures=sorted(measures),
                cache=cache,
                threads=threads,
                path=sys.path,
            )
        except BaseException:
            self.close()
            raise
        self.fields: dict[str, Any] = answer["fields"]

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
        self._entry: Entry | None = None

    def enter(
        self,
        spec: Mapping[str, Any],
        backend: str,
        measures: Sequence[str],
        cache: str,
        threads: int | None,
        path: Sequence[str],
    ) -> dict[str, Any]:
        sys.path[:] = path
        import torch

        from afftool.build import build_case
        from afftool.entry import Reference, enter
        from afftool.measure.clock import clock_for

        if threads:
            torch.set_num_threads(threads)
        case = build_case(CaseSpec.from_fields(spec))
        clock = clock_for(case.spec.device)
        self._entry = enter(case, backend, reference=Reference(case), measures=measures, clock=clock, cache=cache)
        return {"fields": self._entry.fields}

    def sample(self, steps: int) -> dict[str, Any]:
        assert self._entry
        return {"sample": asdict(self._entry.contestant.sample(steps))}

    def split(self, steps: int) -> dict[str, Any]:
        assert self._entry
        return {"parts": dict(self._entry.contestant.split(steps))}

    def move(self) -> dict[str, Any]:
        assert self._entry
        self._entry.contestant.move()
        return {}


if __name__ == "__main__":
    inside = _Inside()
    serve({"enter": inside.enter, "sample": inside.sample, "split": inside.split, "move": inside.move})
