"""Times of one case in this process, a block of steps at a time, when the other side's turn is over."""

from __future__ import annotations

from afftool import backends
from afftool.bench.entry import EagerOutputs
from afftool.build import build_case
from afftool.errors import Rejected
from afftool.gating.contest import BLOCK_MS
from afftool.measure.running import no_collection
from afftool.measure.time.contestant import clock_for
from afftool.spec import CaseSpec

_LEAD_IN = 0.1
"""Share of a block that runs untimed before it, to bring this side's data back into the caches."""
_SAMPLE_MS = {"cpu": 0.2, "cuda": 5.0}
"""A sample takes at least this long: the clock is read, and the device waited for, that often and no more."""
_STABLE = 0.03
_WARM_BLOCKS = 4


class Stopwatch:
    """A case made ready under its backend.

    Raises `Unavailable` where this machine cannot run it that way, and `Rejected` where its result differs from
    eager's: a wrong result has no time.
    """

    def __init__(self, spec: CaseSpec, backend: str) -> None:
        case = build_case(spec)
        self._prepared = backends.load(backend)(case)
        EagerOutputs(case).error_of(self._prepared)
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
        start = self._clock.mark()
        self._prepared.repeat(steps)
        return self._clock.seconds(start, self._clock.mark()) * 1e3 / steps
