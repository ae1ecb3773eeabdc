"""What a step of one case takes in this process: milliseconds, a block of steps at a time, or instructions.

Instructions are counted by valgrind through `torch.utils.benchmark`: a time that hardly moves with the machine.
Valgrind hides what it does not emulate (AVX-512 among it), so the kernels that are counted are those of a plain
AVX2 machine wherever this runs. One thread, since the order in which threads wait for each other is not emulated.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from afftool import backends, imports
from afftool.backends import Prepared
from afftool.bench.entry import EagerOutputs
from afftool.build import build_case
from afftool.errors import Rejected, Unavailable
from afftool.gate.times import BLOCK_MS
from afftool.measure.running import no_collection
from afftool.measure.time.contestant import clock_for
from afftool.room import check_room, least_of_both
from afftool.spec import CaseSpec

_LEAD_IN = 0.1
"""Share of a block that runs untimed before it, to bring this side's data back into the caches."""
_SAMPLE_MS = {"cpu": 0.2, "cuda": 5.0}
"""A sample takes at least this long: the clock is read, and the device waited for, that often and no more."""
_STABLE = 0.03
_WARM_BLOCKS = 4
_TOOLS = ("valgrind", "callgrind_control", "callgrind_annotate")
_REPEATS = 5
"""Single steps that are counted; the first of them may still fill caches, so the least is kept."""


class Stopwatch:
    """A case made ready under its backend.

    Raises `Unavailable` where this machine cannot run it that way, and `Rejected` where its result differs from
    eager's: a wrong result has no time. Raises `TooLarge` for what cannot fit into memory.
    """

    def __init__(self, spec: CaseSpec, backend: str) -> None:
        check_room(least_of_both(spec), spec.device, what=spec.fusion.text)
        case = build_case(spec)
        self._prepared = backends.load(backend)(case)
        EagerOutputs(case).judged(self._prepared)
        self._clock = clock_for(spec.device)
        self._least_sample_ms = _SAMPLE_MS["cuda" if spec.device.startswith("cuda") else "cpu"]
        self._compiled = 0
        self._step_ms = 1.0

    def warm(self, budget_s: float) -> float:
        """Run until the last blocks agree within 3%, or the budget ends; milliseconds a step."""
        ended = self._clock.now() + budget_s
        with self._prepared.mode():
            step_ms = self._sample(1)
        blocks: list[float] = []
        while len(blocks) < 2 or self._clock.now() < ended:
            blocks.append(self._block(max(1, round(BLOCK_MS / step_ms)), step_ms))
            step_ms = min(blocks)
            recent = blocks[-_WARM_BLOCKS:]
            if len(recent) == _WARM_BLOCKS and max(recent) - min(recent) <= _STABLE * min(recent):
                break
        self._compiled = self._prepared.compilations()
        self._step_ms = step_ms
        return step_ms

    def time(self, steps: int) -> float:
        """Milliseconds a step in a block of `steps`, after a short run that is not timed.

        Raises `Rejected` if something was compiled meanwhile: that is no time of a step.
        """
        self._prepared.run(max(1, round(_LEAD_IN * steps)))
        with no_collection():
            step_ms = self._block(steps, self._step_ms)
        if self._prepared.compilations() != self._compiled:
            raise Rejected("it was compiled again while it was timed, for unchanged inputs")
        return step_ms

    def _block(self, steps: int, step_ms: float) -> float:
        """The lower quartile of the samples of a block.

        What disturbs a step only ever adds to it, and on a shared machine it disturbs many; what makes the steps
        themselves slower moves every quantile.
        """
        at_once = max(1, round(self._least_sample_ms / step_ms))
        with self._prepared.mode():
            samples = sorted(self._sample(at_once) for _ in range(max(1, round(steps / at_once))))
        return samples[(len(samples) - 1) // 4]

    def _sample(self, steps: int) -> float:
        if restore := self._prepared.restore:  # no part of a step: each is timed alone
            taken_s = 0.0
            for _ in range(steps):
                restore()
                start = self._clock.mark()
                self._prepared.repeat(1)
                taken_s += self._clock.seconds(start, self._clock.mark())
            return taken_s * 1e3 / steps
        start = self._clock.mark()
        self._prepared.repeat(steps)
        return self._clock.seconds(start, self._clock.mark()) * 1e3 / steps


def why_not(device: str = "cpu") -> str | None:
    """Why instructions cannot be counted here; None where they can. Imports nothing heavy."""
    if platform.system() != "Linux":
        return f"valgrind counts instructions on Linux, this is {platform.system()}"
    if device != "cpu":
        return f"valgrind counts the CPU's instructions, the case runs on {device}"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"{', '.join(missing)} is not installed (Debian, Ubuntu: apt-get install valgrind)" if missing else None


def count_instructions(case: Mapping[str, Any]) -> int:
    """Instructions of one step of a case (the fields of `afftool.gate.side.case_fields`): the least of five counts.

    Everything runs some fifty times slower under valgrind: importing torch takes most of a minute, and a step of
    0.1 s five seconds, so small cases are the ones to count. Raises `Unavailable`.
    """
    if reason := why_not(case["device"]):
        raise Unavailable(reason)
    from torch.utils.benchmark import Timer

    places = [str(place) for place in imports.places()]
    timer = Timer("watched.run(1)", setup=_SETUP.format(places=places, case=dict(case)), num_threads=1)
    try:
        with _environment():
            counted = timer.collect_callgrind(number=1, repeats=_REPEATS, collect_baseline=False, retain_out_file=False)
    except OSError as error:
        raise Unavailable(f"valgrind failed: {str(error).strip().splitlines()[-1]}") from error
    fewest: int = min(stats.counts(denoise=True) for stats in counted)
    return fewest


_SETUP = """
from pathlib import Path
from afftool import backends, imports
from afftool.build import build_case
from afftool.gate.worker import spec_from
imports.look_in(*map(Path, {places!r}))
case = {case!r}
watched = backends.load(case["backend"])(build_case(spec_from(case)))
if watched.restore:
    from afftool.gate.stopwatch import not_counted
    watched = not_counted(watched)
"""


def not_counted(prepared: Prepared) -> Prepared:
    """The case with valgrind's counting off while its inputs are put back, which is no part of a step."""
    restore = prepared.restore
    assert restore

    def aside() -> None:
        torch._C._valgrind_toggle()
        restore()
        torch._C._valgrind_toggle()

    return dataclasses.replace(prepared, restore=aside)


@contextmanager
def _environment() -> Iterator[None]:
    """Torch starts `python`: that is the one that runs now, with dictionaries laid out alike every time."""
    changed = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PYTHONHASHSEED": "0",
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
