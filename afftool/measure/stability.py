"""What was unsteady about a timing, by name, with advice. Nothing is dropped for it; it is stored with the record."""

from __future__ import annotations

from afftool import stats
from afftool.measure.latency import OVERHEAD_SHARE, LatencyReading

SPREAD = 0.05
DRIFT = 0.02
LEVELS = 0.03
OUTLIERS = 0.05


def instability(reading: LatencyReading, precision: float, cache: str = "warm") -> dict[str, str]:
    """Name of each disturbance found in the samples -> what it is and what to do; empty if they are steady.

    With a cold `cache` the clock is read around every step, otherwise around all steps of a sample.
    """
    samples = reading.samples_s
    found: dict[str, str] = {}
    interval = stats.series_interval(samples)
    middle = stats.median(samples)
    if interval is None:
        found["few samples"] = (
            f"{len(samples)} samples give no 95% interval, which takes {stats.FEWEST}; raise --budget"
        )
    elif reading.stopped == "budget":
        found["imprecise"] = (
            f"the budget ended at ±{interval.half_width:.1%} where ±{precision:.1%} was asked for; "
            "raise --budget or --precision"
        )
    if not reading.settled:
        found["warm-up"] = "the times had not settled when warm-up ran out of its share of the budget; raise --budget"
    spread = stats.iqr(samples)
    if spread is not None and middle and spread / middle > SPREAD:
        found["spread"] = (
            f"the middle half of the samples spans {spread / middle:.0%} of the median; "
            "stop other work, pin the process (taskset), or time more steps at once with a larger --batch"
        )
    change = stats.drift(samples)
    if change is not None and abs(change) > DRIFT:
        found["drift"] = (
            f"the last third is {abs(change):.1%} {'slower' if change > 0 else 'faster'} than the first: a clock or a "
            "temperature that moves; compare by latency_ratio, whose rounds drifted alike, or let the machine settle"
        )
    levels = stats.modes(samples)
    if levels and levels[1] / levels[0] - 1 > LEVELS:
        found["two levels"] = (
            f"the samples jump between {levels[0] * 1e3:.4g} and {levels[1] * 1e3:.4g} ms; the median says little: "
            "look for clock switching, a second socket (numactl) or threads that share a core"
        )
    far = sum(stats.outliers(samples))
    if far > OUTLIERS * len(samples):
        found["outliers"] = (
            f"{far} of {len(samples)} samples lie far outside the rest; something else runs at times on this machine"
        )
    steps = 1 if cache == "cold" else reading.steps_per_sample
    share = reading.overhead_s / (middle * steps) if middle else 0.0
    if share > OVERHEAD_SHARE:
        found["clock"] = (
            f"the clock and the call leave an error of {share:.1%} of a sample; with --cache cold steps are timed "
            "one by one, so make them longer with a larger --size or --batch"
        )
    return found
