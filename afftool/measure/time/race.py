"""Time per step: contestants in turns, warmed up until stable, sampled until the answer is precise enough.

One round takes one sample of each contestant, and every other round goes through them backwards, so that a slow drift
of the machine hits all alike. Each such pair of rounds begins with another contestant: at the turn one and the same
runs twice in a row, and would find its data in the cache more often than the others. Now and then all
move to other places in memory, because where data lies can make one of two equal modules a few percent slower for as
long as it stays there. A sample is the mean over so many steps that the errors of the clock and of the call's own time
are below 0.1% of it; now and then single steps are timed as well, since a mean hides the one that takes long.
All samples are kept.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from afftool import patterns, stats
from afftool.errors import Rejected
from afftool.measure.time.contestant import Contestant

OVERHEAD_SHARE = 0.001
"""The most of a sample that may be the clock's error or that of what is taken off for the call."""
LEAST_SAMPLE_S = 0.001
"""Samples are no shorter than a millisecond, so that one round's switch of contestants weighs little."""
WARM_UP_SHARE = 0.25
"""The most of the budget that warm-up may take."""
WARM_UP_WINDOW = 3
FEWEST_ROUNDS = 60
"""Rounds before precision may stop the sampling: fewer leave a ratio's interval wide. A budget stops it earlier."""
EARLIEST = 0.5
"""The share of the budget before which precision stops nothing: a machine has quiet moments that do not last."""
MOVE_SHARE = 0.02
"""The most of the sampling time that moving to other places in memory may take."""
SLOWED = 4
"""A sample that takes so many times what it must is taken over fewer steps, as when other work has begun meanwhile."""
LOOK_EVERY = 4
MOST_LOOKED_AT = 20
"""Every so many rounds up to so many steps are looked at closely: their parts, and each by itself."""


@dataclass(frozen=True, kw_only=True)
class LatencyReading:
    """The samples of one contestant, in seconds a step and in the order of the rounds, and how they were taken.

    `single_s` are steps that were timed one by one: the samples, or in rounds of their own where a sample has several.
    `settled` is False if warm-up ended by its budget. `parts_s` are median seconds of forward, backward and
    optimizer in training, measured in rounds of their own; a step may take less than their sum. `page_faults` are a
    step's, at the median.
    """

    samples_s: tuple[float, ...]
    steps_per_sample: int
    warmup_s: float
    settled: bool
    stopped: Literal["precision", "budget"]
    overhead_s: float
    parts_s: dict[str, float] = field(default_factory=dict)
    page_faults: float | None = None
    single_s: tuple[float, ...] = ()

    def fields(self, batch: int) -> dict[str, Any]:
        """The fields of a record that this reading fills; `batch` is for the throughput.

        The interval is that of the process the samples are from, and no other.
        """
        ms = tuple(sample * 1e3 for sample in self.samples_s)
        median, interval = stats.median(ms), stats.series_interval(ms)
        p99_s = stats.percentile(self.single_s, 99)
        return {
            "latency_ms": median,
            "latency_low_ms": interval.low if interval else None,
            "latency_high_ms": interval.high if interval else None,
            "latency_iqr_ms": stats.iqr(ms),
            "latency_p99_ms": None if p99_s is None else p99_s * 1e3,
            "single_steps": len(self.single_s),
            "throughput_per_s": batch / median * 1e3 if median else None,
            "samples": len(ms),
            "samples_ms": ms,
            "outliers": sum(patterns.outliers(ms)),
            "steps_per_sample": self.steps_per_sample,
            "warmup_s": self.warmup_s,
            "stopped": self.stopped,
            "page_faults": self.page_faults,
            **{f"{name}_ms": seconds * 1e3 for name, seconds in self.parts_s.items()},
        }


@dataclass
class _Lane:
    """One contestant's way through a race."""

    contestant: Contestant
    steps: int = 1
    settled: bool = False
    quiet: bool = False
    warm: list[float] = field(default_factory=list)
    warmup_s: float = 0.0
    overheads: list[float] = field(default_factory=list)
    samples: list[float] = field(default_factory=list)
    faults: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)
    taken_over: list[int] = field(default_factory=list)
    most_steps: int = 1
    parts: dict[str, list[float]] = field(default_factory=dict)
    failure: Exception | None = None

    @property
    def overhead_s(self) -> float:
        return statistics.median(self.overheads[-WARM_UP_WINDOW:])

    @property
    def least_sample_s(self) -> float:
        return max(LEAST_SAMPLE_S, 2 * self.overhead_s / OVERHEAD_SHARE)  # twice, to stay clear of the limit

    def warm_up(self, tolerance: float) -> None:
        """One sample of warm-up: adjust the steps of a sample, and see whether the times have settled."""
        sample = self.contestant.sample(self.steps)
        self.overheads.append(sample.overhead_s)
        # Only the last sample counts here: a compilation in an earlier one is what warm-up is for.
        self.quiet = sample.compilations == 0
        self.warm.append(sample.step_s)
        long_enough = sample.step_s * self.steps >= self.least_sample_s
        if not long_enough:
            # A step's time is a guess until it is warm, so this converges over several samples. It only grows: the
            # first calls are slow, and steps counted by them would be too few, never too many.
            self.steps = max(self.steps + 1, math.ceil(self.least_sample_s / max(sample.step_s, 1e-9)))
            self.steps = min(self.steps, 100 * len(self.warm) ** 4)  # one odd sample must not make an endless one
        # Two windows side by side: times that still fall keep them apart, a single slow sample does not. Samples of
        # fewer steps may be among them, since what is compared is the time of a step.
        recent, before = self.warm[-WARM_UP_WINDOW:], self.warm[-2 * WARM_UP_WINDOW : -WARM_UP_WINDOW]
        level = len(before) == WARM_UP_WINDOW and _level(before, recent, tolerance)
        self.settled = self.quiet and long_enough and level

    def take_sample(self) -> None:
        """One sample that counts. Raises `Rejected` if something was compiled meanwhile."""
        sample = self.contestant.sample(self.steps)
        if sample.compilations:
            raise Rejected(
                "it was compiled again while it was timed",
                hint="its forward depends on something that changes from call to call; TORCH_LOGS=recompiles shows it",
            )
        self.samples.append(sample.step_s)
        if sample.page_faults is not None:
            self.faults.append(sample.page_faults)
        self.taken_over.append(self.steps)
        self._fit()

    def _fit(self) -> None:
        """Fewer steps a sample while a step takes many times what it took when warm, and no more than then after it.

        Beside other work one step can take as long as all of a sample did: as many of them would leave a budget with
        a handful of samples.
        """
        self.most_steps = max(self.most_steps, self.steps)
        step_s = statistics.median(self.samples[-WARM_UP_WINDOW:])
        slowed = step_s * self.steps > SLOWED * self.least_sample_s
        if slowed or self.steps < self.most_steps:
            self.steps = min(self.most_steps, max(1, math.ceil(self.least_sample_s / max(step_s, 1e-9))))

    def look(self) -> None:
        """One look at the parts of a step, and at steps by themselves where a sample has several."""
        steps = min(self.steps, MOST_LOOKED_AT)
        for name, seconds in self.contestant.split(steps).items():
            self.parts.setdefault(name, []).append(seconds)
        if steps > 1:
            self.single += self.contestant.singly(steps)

    def precise(self, precision: float) -> bool:
        interval = stats.series_interval(self.samples)
        return interval is not None and interval.half_width <= precision

    def reading(self, precision: float) -> LatencyReading | Exception:
        if self.failure or not self.samples:
            return self.failure or Rejected("the budget ended before the first sample", hint="raise --budget")
        steps = statistics.median_low(self.taken_over)
        return LatencyReading(
            samples_s=tuple(self.samples),
            steps_per_sample=steps,
            warmup_s=self.warmup_s,
            settled=self.settled,
            stopped="precision" if self.precise(precision) else "budget",
            overhead_s=self.overhead_s,
            parts_s={name: statistics.median(times) for name, times in self.parts.items()},
            page_faults=statistics.median(self.faults) if self.faults else None,
            single_s=tuple(self.single if steps > 1 else self.samples),
        )


def race(
    contestants: Sequence[Contestant],
    *,
    now: Callable[[], float],
    budget_s: float,
    precision: float = 0.01,
    each_round: Callable[[], None] = lambda: None,
    fewest_rounds: int = FEWEST_ROUNDS,
    moving: bool = True,
) -> list[LatencyReading | Exception]:
    """Time the contestants in turns: a reading each, or the error that stopped it while the others went on.

    Sampling ends when every median's 95% interval lies within `precision` of it (relative, to either side), or when
    `budget_s` seconds, by `now` and warm-up included, are spent; two rounds are taken whatever the budget, so
    that every contestant was once before and once after its neighbours. Precision may stop it after `fewest_rounds`,
    and not before half the budget is spent.
    With `moving` the contestants change their places in memory now and then.
    """
    lanes = [_Lane(contestant) for contestant in contestants]
    started = now()
    _warm_up(lanes, now, started + WARM_UP_SHARE * budget_s, 2 * precision)
    rounds, look, moves = 0, fewest_rounds, _Moves(now)
    # Moving and stopping happen between pairs of rounds: whenever the race stops, each contestant was before and after
    # its neighbours equally often, and both rounds of a pair find their data in the same places.
    while live := [lane for lane in lanes if lane.failure is None]:
        if moving and rounds % 2 == 0:
            moves.make(live)
        for lane in _in_turn(live, rounds):
            _attempt(lane, lane.take_sample)
            if rounds % LOOK_EVERY == 0:
                _attempt(lane, lane.look)
        rounds += 1
        each_round()
        if rounds % 2:
            continue
        spent_s = now() - started
        if spent_s >= budget_s:
            break
        # Each look at the interval is one more chance to stop at a lucky moment, and is work over all samples, so looks
        # grow rarer: one an eighth more rounds. All must be precise, since all share the rounds.
        if rounds >= look and spent_s >= EARLIEST * budget_s:
            if all(lane.precise(precision) for lane in lanes if lane.failure is None):
                break
            look = rounds + max(2, rounds // 8)
    return [lane.reading(precision) for lane in lanes]


def _warm_up(lanes: Sequence[_Lane], now: Callable[[], float], deadline: float, tolerance: float) -> None:
    """Rounds that do not count, until all have settled or it is `deadline`, at least one."""
    rounds = 0
    while True:
        live = [lane for lane in lanes if lane.failure is None]
        for lane in _in_turn(live, rounds):
            before = now()
            _attempt(lane, lambda lane=lane: lane.warm_up(tolerance))  # type: ignore[misc]
            lane.warmup_s += now() - before
        rounds += 1
        # All warm up until the slowest has settled: who has settled and waits would cool down again.
        if all(lane.settled for lane in live if lane.failure is None) or now() >= deadline:
            break
    # Times that have not settled are kept and said (`settled`); what still compiles has no time of its own to keep.
    for lane in lanes:
        if lane.failure is None and not lane.quiet:
            lane.failure = Rejected(
                f"it was still compiling after {rounds} round{'s' if rounds > 1 else ''} of warm-up",
                hint="raise --budget, or see with TORCH_LOGS=recompiles what changes from call to call",
            )


class _Moves:
    """Moves the contestants to other places in memory, as often as `MOVE_SHARE` of the time allows."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._cost_s = 0.0
        self._moved_at = now()
        self._order = random.Random(0)

    def make(self, lanes: Sequence[_Lane]) -> None:
        """Move them in any order, unless the last time is too short ago for what it cost."""
        started = self._now()
        if started - self._moved_at < self._cost_s / MOVE_SHARE:
            return
        for lane in self._order.sample(lanes, len(lanes)):
            _attempt(lane, lane.contestant.move)
        self._moved_at = self._now()
        self._cost_s = self._moved_at - started


def _in_turn(live: Sequence[_Lane], rounds: int) -> Sequence[_Lane]:
    """The order of a round, counted from 0: each pair of rounds starts from another one, and goes there and back."""
    first = rounds // 2 % max(1, len(live))
    order = [*live[first:], *live[:first]]
    return order if rounds % 2 == 0 else order[::-1]


def _attempt(lane: _Lane, action: Callable[[], None]) -> None:
    if lane.failure is None:
        try:
            action()
        except (Exception, SystemExit) as error:
            lane.failure = error if isinstance(error, Exception) else Rejected(f"it ended the program: {error!r}")


def _level(before: Sequence[float], recent: Sequence[float], tolerance: float) -> bool:
    """Whether two windows are on one level: their medians agree within the tolerance or the noise inside them."""
    # Noise excuses a difference of medians, but never more than a tenth: windows so wild tell nothing yet.
    a, b = statistics.median(before), statistics.median(recent)
    noise = max(max(window) - min(window) for window in (before, recent)) / 2
    return abs(a - b) <= max(tolerance * b, min(noise, 0.1 * b))
