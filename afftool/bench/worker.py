"""The inner half of a row in a process of its own: what that can be asked.

Started as `python -m afftool.bench.worker` by `afftool.bench.child`; nothing imports it, or it would be there twice.
A process that only times imports what a user's script would: what else it did would be in its heap.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from afftool import backends
from afftool.build import build_case
from afftool.device_health import failure_on
from afftool.failure import FailedError
from afftool.measure.time.caches import flusher
from afftool.measure.time.contestant import Contestant, Timed, clock_for
from afftool.process import Answer, serve
from afftool.record import Cache, Record
from afftool.spec import CaseSpec, FusionSpec

Fields = Mapping[str, Any]


class Worker:
    """The questions that can be asked, `enter` or `prepare` before the others."""

    def __init__(self) -> None:
        self._contestant: Contestant | None = None
        self._device = "cpu"
        self._path: Sequence[str] = ()

    def enter(
        self,
        spec: Fields,
        record: dict[str, Any],
        measures: Sequence[str],
        cache: Cache,
        threads: int | None,
        path: Sequence[str],
    ) -> Answer:
        """Get a case ready; answers its record as far as it is known then. Raises what `afftool.bench.entry` does."""
        from afftool.bench.entry import EagerOutputs, enter

        case_spec = self._begin(spec, threads, path)
        case = build_case(case_spec)
        clock, eager = clock_for(case.spec.device), EagerOutputs(case)
        known = Record.from_dict(record)
        entrant = enter(case, known, eager=eager, measures=measures, clock=clock, cache=cache)
        self._contestant = entrant.contestant
        return {"record": entrant.record.to_dict()}

    def prepare(
        self,
        spec: Fields,
        backend: str,
        writes: Sequence[str],
        cache: Cache,
        threads: int | None,
        path: Sequence[str],
    ) -> Answer:
        """Get a case that `writes` into these inputs ready to be timed, without a look at anything else.

        Raises what the backend does.
        """
        # A forward pass to find that out would free large blocks, and with the first of them glibc changes its ways.
        case = build_case(self._begin(spec, threads, path)).told(writes)
        flush = flusher(case.spec.device) if cache == "cold" else None
        self._contestant = Timed(backends.load(backend)(case), clock_for(case.spec.device), flush)
        return {}

    def settle(self, fusion: str, path: Sequence[str]) -> Answer:
        """The text of a fusion of the user's own once its class has told its maps, and what was assumed of it."""
        from afftool.fusion.own import new_assumptions, settled

        self._take(path)
        return {"fusion": settled(FusionSpec.parse(fusion)).text, "said": new_assumptions()}

    def check(self, cases: Sequence[Fields], path: Sequence[str]) -> Answer:
        """Load and build what is the user's own; raises what `check_buildable` does. Answers what was assumed."""
        from afftool.build import check_buildable
        from afftool.fusion.own import new_assumptions
        from afftool.registry import load

        self._take(path)
        specs = [CaseSpec.from_fields(case) for case in cases]
        for target in dict.fromkeys(target for spec in specs for target in spec.own_targets):
            load(target)
        check_buildable(specs)
        return {"said": new_assumptions()}

    def fused_at(self, spec: Fields, path: Sequence[str]) -> Answer:
        """Where a grafted network fuses, as the fields of its record; empty where it does not."""
        from afftool.bench.in_context import fused_at

        fused = fused_at(self._begin(spec, None, path))
        return {"fields": fused.fields if fused else {}}

    def count(self, spec: Fields, measures: Sequence[str], before_backends: bool, path: Sequence[str]) -> Answer:
        """The record of a case before any backend, as `Costs` gives it."""
        from afftool.bench.costs import Costs
        from afftool.measure.cost.own_formulas import own_formulas

        case = self._begin(spec, None, path)
        if "cost" in measures:
            own_formulas()
        return {"record": Costs(measures, before_backends).of(case).to_dict()}

    def sample(self, steps: int) -> Answer:
        """Time so many steps as one sample."""
        assert self._contestant
        return {"sample": asdict(self._contestant.sample(steps))}

    def split(self, steps: int) -> Answer:
        """Time the parts of a step, over so many."""
        assert self._contestant
        return {"parts": dict(self._contestant.split(steps))}

    def singly(self, steps: int) -> Answer:
        """Time so many steps one by one."""
        assert self._contestant
        return {"times": list(self._contestant.singly(steps))}

    def move(self) -> Answer:
        """Put the case elsewhere in memory."""
        assert self._contestant
        self._contestant.move()
        return {}

    def answer(self, verb: Callable[..., Answer], **fields: Any) -> Answer:
        """What `verb` answers. Raises `FailedError` with what it raised, and with what became of the device."""
        try:
            return verb(**fields)
        except (Exception, SystemExit) as error:
            raise FailedError(failure_on(self._device, error)) from error

    def _take(self, path: Sequence[str]) -> None:
        """Have the path of who asks; what the user's own module adds to it stays, as it does over there."""
        if path != self._path:
            sys.path[:] = self._path = path

    def _begin(self, spec: Fields, threads: int | None, path: Sequence[str]) -> CaseSpec:
        self._take(path)
        warnings.simplefilter("ignore")  # the process that asks has built the same, and told
        if threads:
            torch.set_num_threads(threads)
        self._device = spec["device"]
        return CaseSpec.from_fields(spec)


if __name__ == "__main__":
    worker = Worker()
    verbs = (
        *(worker.settle, worker.check, worker.fused_at, worker.count, worker.enter, worker.prepare),
        *(worker.sample, worker.split, worker.singly, worker.move),
    )
    serve({verb.__name__: partial(worker.answer, verb) for verb in verbs})
