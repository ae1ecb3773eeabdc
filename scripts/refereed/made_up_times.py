"""One simulated run of each question about times: on made-up samples, through the functions that `bench` calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from afftool import patterns, stats
from afftool.measure.time.contestant import Sample
from afftool.measure.time.processes import Pooled, pooled
from afftool.measure.time.race import LatencyReading, race
from refereed.trial import Run
from refereed.worlds import Rng, World, independent, processes

SLOW_KIND = 0.3
"""The share of the processes that take twice as long, in a world of two kinds of processes."""


def holds(interval: stats.Interval | None, truth: float = 1.0) -> bool | None:
    return None if interval is None else interval.contains(truth)


def of_one(world: World, count: int) -> Run:
    return lambda rng: holds(stats.series_interval(world(rng, count).tolist()))


def hardly_wider(rng: Rng) -> bool | None:
    samples = independent(rng, 200).tolist()
    plain, wide = stats.median_interval(samples), stats.series_interval(samples)
    return None if plain is None or wide is None else wide.high - wide.low <= 1.3 * (plain.high - plain.low)


def in_shared_rounds(world: World, count: int) -> Run:
    """Equals under one machine, which varies as the world does; each varies by 2% besides."""

    def run(rng: Rng) -> bool | None:
        machine = world(rng, count)
        one, other = (machine * np.exp(rng.normal(0, 0.02, count)) for _ in range(2))
        return holds(stats.paired_ratio(one.tolist(), other.tolist()))

    return run


def each_its_own(world: World, count: int) -> Run:
    """Equals that vary as the world does, each by itself."""
    return lambda rng: holds(stats.paired_ratio(world(rng, count).tolist(), world(rng, count).tolist()))


def reading(samples: Sequence[float]) -> LatencyReading:
    return LatencyReading(
        samples_s=tuple(samples), steps_per_sample=1, warmup_s=0.0, settled=True, stopped="budget", overhead_s=0.0
    )


def of_row(rows: Sequence[Sequence[float]]) -> stats.Interval | None:
    """The time and the interval in the record of a row with these processes, in seconds."""
    row = pooled([reading(samples) for samples in rows])
    assert isinstance(row, Pooled)
    fields: Mapping[str, Any] = row.fields(1)
    low, high = fields["latency_low_ms"], fields["latency_high_ms"]
    return None if low is None else stats.Interval(fields["latency_ms"] / 1e3, low / 1e3, high / 1e3)


def of_several(world: World, count: int, between: float, samples: int = 60) -> Run:
    return lambda rng: holds(of_row([one.tolist() for one in processes(rng, world, count, samples, between)]))


def within(precision: float, count: int, between: float) -> Run:
    def run(rng: Rng) -> bool | None:
        interval = of_row([one.tolist() for one in processes(rng, independent, count, 60, between)])
        return None if interval is None else interval.half_width <= precision

    return run


def of_pairs(world: World, count: int, between: float) -> Run:
    """The ratio of equals, from pairs of processes; the machine varies for both of a pair alike."""

    def run(rng: Rng) -> bool | None:
        pairs = []
        for _ in range(count):
            machine = world(rng, 60)
            one, other = (machine * own for own in processes(rng, independent, 2, 60, between))
            pairs.append((one.tolist(), other.tolist()))
        return holds(stats.ratio_of_pairs(pairs))

    return run


def seen(times: float, count: int, between: float) -> Run:
    """Whether pairs of processes show that one side takes so many times as long."""

    def run(rng: Rng) -> bool | None:
        pairs = []
        for _ in range(count):
            one, other = processes(rng, independent, 2, 60, between)
            pairs.append(((one * times).tolist(), other.tolist()))
        ratio = stats.ratio_of_pairs(pairs)
        return None if ratio is None else ratio.low > 1

    return run


def of_two_kinds(count: int) -> Run:
    """Whether the interval holds the mean of all processes where some take twice as long."""

    def run(rng: Rng) -> bool | None:
        slow = np.where(rng.random(count) < SLOW_KIND, 2.0, 1.0)
        rows = [one * kind for one, kind in zip(processes(rng, independent, count, 60, 0.01), slow, strict=True)]
        return holds(of_row([one.tolist() for one in rows]), 2.0**SLOW_KIND)

    return run


@dataclass
class Played:
    """A contestant whose samples are made up before; each takes a hundredth of a second."""

    samples: Sequence[float]
    taken: int = 0

    def now(self) -> float:
        return self.taken * 0.01

    def sample(self, steps: int) -> Sample:
        self.taken += 1
        return Sample(0.01 * self.samples[self.taken % len(self.samples)])

    def split(self, steps: int) -> Mapping[str, float]:
        return {}

    def singly(self, steps: int) -> Sequence[float]:
        return ()

    def move(self) -> None:
        pass


def raced(samples: Sequence[float], precision: float) -> LatencyReading:
    """A race of one contestant, with a budget for all of these samples."""
    played = Played(samples)
    (result,) = race([played], now=played.now, budget_s=len(samples) / 100, precision=precision)
    assert isinstance(result, LatencyReading), result
    return result


def stopped_early(world: World, count: int, precision: float) -> Run:
    """Whether a run that precision stopped holds the truth; nothing of one that its budget ended."""

    def run(rng: Rng) -> bool | None:
        result = raced(world(rng, count).tolist(), precision)
        taken = [sample * 100 for sample in result.samples_s]
        return holds(stats.series_interval(taken)) if result.stopped == "precision" else None

    return run


def wrongly(world: World, count: int, precision: float) -> Run:
    early = stopped_early(world, count, precision)
    return lambda rng: early(rng) is False


def stops(world: World, count: int, precision: float) -> Run:
    return lambda rng: raced(world(rng, count).tolist(), precision).stopped == "precision"


def raced_in_processes(world: World, count: int, samples: int, precision: float) -> Run:
    """A row of processes that stop as they do, on a machine that goes on varying from one to the next."""

    def run(rng: Rng) -> bool | None:
        rows = [raced(one.tolist(), precision) for one in processes(rng, world, count, samples, 0.01)]
        return holds(of_row([[100 * sample for sample in row.samples_s] for row in rows]))

    return run


def drifts(world: World, count: int) -> Run:
    return lambda rng: bool(patterns.drift(world(rng, count).tolist()))


def rising(rng: Rng, count: int) -> Any:
    """A true drift by 4%, in noise of 1%."""
    return np.exp(rng.normal(0, 0.01, count) + rng.choice((-1, 1)) * np.linspace(-0.02, 0.02, count))


def splits(count: int, between: float) -> Run:
    """Whether processes of one kind are told as two groups."""
    return lambda rng: patterns.two_groups(np.exp(rng.normal(0, between, count)).tolist()) is not None


def parts(count: int, between: float) -> Run:
    """Whether two kinds of processes, 1 and 2, are told apart where both came."""

    def run(rng: Rng) -> bool | None:
        slow = rng.random(count) < SLOW_KIND
        if slow.all() or not slow.any():
            return None
        groups = patterns.two_groups(np.exp(rng.normal(0, between, count) + np.log(2) * slow).tolist())
        return groups is not None and round(groups.high_share * count) == slow.sum()

    return run
