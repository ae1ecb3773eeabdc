"""The inner half of an isolated row: what its process can be asked.

Started as `python -m afftool.bench.worker` by `afftool.bench.child`; nothing imports it, or it would be there twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from afftool.bench.entry import EagerOutputs, Entrant, enter
from afftool.build import build_case
from afftool.device_health import failure_on
from afftool.failure import FailedError
from afftool.measure.time.contestant import clock_for
from afftool.process import Answer, serve
from afftool.record import Cache, Record
from afftool.spec import CaseSpec


class Worker:
    """The questions that can be asked, `enter` before the others."""

    def __init__(self) -> None:
        self._entrant: Entrant | None = None
        self._device = "cpu"

    def enter(
        self,
        spec: Mapping[str, Any],
        record: dict[str, Any],
        measures: Sequence[str],
        cache: Cache,
        threads: int | None,
        path: Sequence[str],
    ) -> Answer:
        """Get a case ready; answers its record as far as it is known then. Raises what `afftool.bench.entry` does."""
        sys.path[:] = path
        if threads:
            torch.set_num_threads(threads)
        self._device = spec["device"]
        case = build_case(CaseSpec.from_fields(spec))
        clock, eager = clock_for(case.spec.device), EagerOutputs(case)
        known = Record.from_dict(record)
        self._entrant = enter(case, known, eager=eager, measures=measures, clock=clock, cache=cache)
        return {"record": self._entrant.record.to_dict()}

    def sample(self, steps: int) -> Answer:
        """Time so many steps as one sample."""
        assert self._entrant
        return {"sample": asdict(self._entrant.contestant.sample(steps))}

    def split(self, steps: int) -> Answer:
        """Time the parts of a step, over so many."""
        assert self._entrant
        return {"parts": dict(self._entrant.contestant.split(steps))}

    def move(self) -> Answer:
        """Put the case elsewhere in memory."""
        assert self._entrant
        self._entrant.contestant.move()
        return {}

    def answer(self, verb: Callable[..., Answer], **fields: Any) -> Answer:
        """What `verb` answers. Raises `FailedError` with what it raised, and with what became of the device."""
        try:
            return verb(**fields)
        except (Exception, SystemExit) as error:
            raise FailedError(failure_on(self._device, error)) from error


if __name__ == "__main__":
    worker = Worker()
    verbs = (worker.enter, worker.sample, worker.split, worker.move)
    serve({verb.__name__: partial(worker.answer, verb) for verb in verbs})
