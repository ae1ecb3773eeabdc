"""The inner half of a side: what it can be asked.

Started as `python -m afftool.gate.worker` by `afftool.gate.side`, in the directory whose code it measures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afftool import environment, imports
from afftool.device import resolve_device
from afftool.errors import BaselineError, SpecError, Unavailable
from afftool.gate.exact import read_exact
from afftool.gate.side import PROTOCOL
from afftool.gate.stopwatch import Stopwatch, count_instructions
from afftool.global_state import kept
from afftool.process import Answer, serve
from afftool.spec import CaseSpec

Fields = Mapping[str, Any]


class Worker:
    """The questions that can be asked. The case that is being timed stays ready between two of them."""

    def __init__(self) -> None:
        self._watches: dict[str, Stopwatch] = {}
        self._cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

    def hello(self, packages: Sequence[str], tree: str | None, places: Sequence[str] = ()) -> Answer:
        """Have the user's modules found in `places`, and make sure that the project's packages come from this `tree`.

        Raises `BaselineError`.
        """
        imports.look_in(*map(Path, places))
        for package in packages:
            found = imports.place_of(package)
            if found is None or tree is None:
                continue
            if not found.resolve().is_relative_to(Path(tree).resolve()):
                raise BaselineError(
                    f"{package!r} would be imported from {found}, not from the commit's own files",
                    hint="the package does not exist at that commit, or an installed copy goes before it",
                )
        return {"protocol": PROTOCOL}

    def environment(self, device: str = "cpu") -> Answer:
        """The machine and its software, with the GPU that `device` is; the first where it is not there."""
        try:
            place = resolve_device(device)
        except SpecError:  # its cases will say so
            place = "cpu"
        return {"environment": environment.read(place).to_dict()}

    def exact(self, case: Fields, metrics: Sequence[str]) -> Answer:
        """The exact metrics of a case, as a `Reading`."""
        return {"reading": read_exact(spec_from(case), metrics).to_dict()}

    def warm(self, case: Fields, budget_s: float, core: int | None = None) -> Answer:
        """Build a case and run it until its times are stable, on one core if told; answers what a step takes."""
        key = json.dumps(case)
        spec = spec_from(case)
        self._watches = {}  # the case before it is gone, and its memory free, wherever this one comes in the order
        if core is not None:
            os.sched_setaffinity(0, self._cores)  # to build, all cores are there
        with kept(spec.own_targets, "while it ran"):
            self._watches = {key: Stopwatch(spec, case["backend"])}
        if core is not None:
            os.sched_setaffinity(0, {core})
        return {"step_ms": self._watches[key].warm(budget_s)}

    def time(self, case: Fields, steps: int) -> Answer:
        """Time so many steps of the case that was warmed up last; answers each block's milliseconds a step."""
        return {"step_ms": self._watches[json.dumps(case)].time(steps)}

    def instructions(self, case: Fields) -> Answer:
        """Count the instructions of a step under valgrind. Raises `Unavailable`."""
        return {"instructions": count_instructions(case)}


def spec_from(fields: Fields) -> CaseSpec:
    """The case in a question (`afftool.gate.side.case_fields`). Raises `SpecError`; `Unavailable` for its device."""
    plain = {name: value for name, value in fields.items() if name != "backend"}
    try:
        device = resolve_device(plain["device"])
    except SpecError as error:
        raise Unavailable(error.message, hint=error.hint) from error
    return CaseSpec.from_fields(plain | {"device": device})


if __name__ == "__main__":
    worker = Worker()
    serve(
        {
            "hello": worker.hello,
            "environment": worker.environment,
            "exact": worker.exact,
            "warm": worker.warm,
            "time": worker.time,
            "instructions": worker.instructions,
        },
        tracebacks=True,
    )
