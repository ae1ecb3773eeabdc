"""Which measured times are worth reading. What is not is told as not measured; JSON and CSV keep what was read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from afftool import stats, units
from afftool.record import Record

WIDEST = 10.0
"""The ends of a usable interval are within this factor: of one that spans a whole order of magnitude nobody can use
even the first digit. Of processes in two groups it is the groups: a heap's two kinds of luck are up to four apart,
which is told and worth knowing."""
TIGHT = 1.5
"""A ratio from shared rounds outlives times that are not usable, if its own interval is within this factor."""

TIMES = (
    "latency_ms",
    "latency_iqr_ms",
    "latency_p99_ms",
    "forward_ms",
    "backward_ms",
    "optimizer_ms",
    "throughput_per_s",
    "fast_group_ms",
    "slow_group_ms",
    "slow_group_share",
    "least_share",
)
"""What is read off the samples, and no better than they are."""
OTHERS = ("busy machine", "stolen time", "throttled processor", "shared GPU", "throttled GPU")
"""The disturbances that are somebody else's doing."""


def unusable(record: Record) -> str | None:
    """Why nobody can use this row's time, as `the machine was busy`; None where it can be used, or there is none."""
    width = _width(*_ends(record))
    if width is None or width <= WIDEST:
        return None
    if any(name in OTHERS for name in record.instability or ()):
        return "the machine was busy"
    return "the machine was busy, or the time of a step jumps by itself"


def as_told(record: Record) -> Record:
    """The record as people may read it: a time nobody can use is taken out, and its ratio, unless that is tight.

    The ends of the interval stay: they say what was read instead of a time.
    """
    width = _width(record.latency_ratio_low, record.latency_ratio_high)
    bad = unusable(record) is not None
    several = (record.processes or 1) > 1  # their interval says how little is known of the ratio, however wide it is
    trusted = (not bad and (width is None or several or width <= WIDEST)) or (width is not None and width <= TIGHT)
    told = record if trusted else replace(record, latency_ratio=None, latency_ratio_low=None, latency_ratio_high=None)
    if not bad:
        return told
    nothing: dict[str, Any] = dict.fromkeys(TIMES)
    return replace(told, **nothing)


def interval_or_why(record: Record) -> str | None:
    """`1.2 ms to 1.3 ms`, or `not measured: the machine was busy`; None where there is no interval."""
    if why := unusable(record):
        return f"not measured: {why}"
    if record.latency_low_ms is None or record.latency_high_ms is None:
        return None
    return f"{units.milliseconds(record.latency_low_ms)} to {units.milliseconds(record.latency_high_ms)}"


def read_of(record: Record) -> str:
    """What was read instead of a usable time: `8 timings put the median between 518 µs and 58.0 ms`."""
    low, high = (units.milliseconds(end or 0.0) for end in _ends(record))
    timings = f"{record.samples:,} timings" if record.samples is not None else "timings"
    return f"{timings} put the median between {low} and {high}"


def advice(records: Iterable[Record]) -> str:
    """What was read of rows whose times nobody can use, of the widest of them, and what to do about it."""
    worst = max(records, key=lambda record: _width(*_ends(record)) or 0.0)
    return (
        f"{read_of(worst)}; stop other work and measure again, with --threads auto or a longer --budget where it "
        "cannot be stopped"
    )


def _ends(record: Record) -> tuple[float | None, float | None]:
    """Between what the median lies: the ends of its interval; where samples give none, of their middle half or all.

    Processes in two groups lie in these, and the interval is that of an unknown mixture of them.
    """
    if record.fast_group_ms is not None and record.slow_group_ms is not None:
        return record.fast_group_ms, record.slow_group_ms
    if record.latency_low_ms is not None or len(record.samples_ms) < 2:
        return record.latency_low_ms, record.latency_high_ms
    quartiles = (stats.percentile(record.samples_ms, 25), stats.percentile(record.samples_ms, 75))
    return quartiles if None not in quartiles else (min(record.samples_ms), max(record.samples_ms))


def _width(low: float | None, high: float | None) -> float | None:
    """How many times the lower end the upper one is."""
    if low is None or high is None:
        return None
    return high / low if low > 0 else float("inf") if high > 0 else 1.0
