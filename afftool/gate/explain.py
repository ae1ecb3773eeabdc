"""Verdicts in words: what a reviewer wants to read next to a red line. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from afftool import units
from afftool.gate.reading import Metric, Reading, newcomers
from afftool.gate.rules import Rule
from afftool.gate.times import FEWEST_JOBS
from afftool.stats import Interval
from afftool.words import some_of

_SHOWN = 3
_WHY = {
    "macs": "operators",
    "flops": "operators",
    "moved_bytes": "operators",
    "peak_bytes": "saved_bytes",
}
"""Metrics whose growth is explained by the breakdown of another."""


def growth(metric: Metric, before: Reading, after: Reading) -> str:
    """Why an exact metric regressed: by how much, and what is new."""
    was, now = before.values[metric.name], after.values[metric.name]
    head = f"{metric.counted(now - was, 'more ')} ({_percent(was, now)})"
    source = metric.name if metric.name in {*before.details, *after.details} else _WHY.get(metric.name, metric.name)
    what = newcomers(before.details.get(source, {}), after.details.get(source, {}))
    amounts = metric.name == source and metric.name != "graph_breaks"
    parts = [head + (f": {_listed(what, amounts)}" if what else "")]
    if metric.name == "params" and now - was == _dead(after) - _dead(before):
        parts.append("no gradient reaches any of them")
    if metric.name == "uncounted_ops":
        parts.append("macs and flops leave these out")
    return "; ".join(parts)


def not_finite(before: float | None, after: float, absent: str) -> str:
    """What is said of values that are infinite or NaN; `absent` is why it is not known what they were before."""
    now = f"{_share(after)} of its outputs and gradients are infinite or NaN"
    if before is None:
        return f"{now}; whether they were before is not known: {absent}"
    return f"{now}, before {_share(before) if before else 'all were finite'}"


def _share(value: float) -> str:
    return f"{units.significant(100 * value, 2)}%"


def newly_dead(before: Reading, after: Reading) -> str | None:
    """Why `live_params` regressed although it did not grow: parameters that no gradient reaches."""
    grown = _dead(after) - _dead(before)
    if grown <= 0:
        return None
    what = newcomers(before.details.get("dead_params", {}), after.details.get("dead_params", {}))
    listed = f": {_listed(what, True)}" if what else ""
    return (
        f"{units.count(grown)} more parameters that no gradient reaches ({units.count(_dead(before))} before)"
        f"{listed}; use them in forward or delete them"
    )


def beyond(metric: Metric, low: float, high: float, rule: Rule) -> str | None:
    """Why a value is outside its absolute limits; None if it is not, or may not be. An exact value has low = high."""
    if rule.max is not None and low > rule.max:
        return f"{metric.counted(low)}, above the limit of {rule.max:,.10g}"
    if rule.min is not None and high < rule.min:
        return f"{metric.counted(high)}, below the limit of {rule.min:,.10g}"
    return None


def slower(metric: Metric, ratio: Interval, before: float, after: float) -> str:
    """Why a time regressed."""
    low, high = 100 * (ratio.low - 1), 100 * (ratio.high - 1)
    if metric.higher_is_better:
        return f"each step takes {low:.1f}% to {high:.1f}% longer, {units.significant(before)} -> {after:.3g} a second"
    return f"{low:.1f}% to {high:.1f}% slower, {units.milliseconds(before)} -> {units.milliseconds(after)} a step"


def open_answer(ratio: Interval, limit: float) -> str:
    """Why a time is inconclusive."""
    return (
        f"{100 * (ratio.low - 1):+.1f}% to {100 * (ratio.high - 1):+.1f}% holds the limit of {100 * (limit - 1):+.1f}%"
    )


def more_pairs(pairs: int, needed: int | None, budget_s: float | None) -> str:
    """What would give an answer that so many pairs of processes do not."""
    timed = f"{pairs} pairs of processes were timed"
    if needed is None or budget_s is None:
        return f"{timed}, and what they saw lies too near the limit to say how many would tell: give a longer --budget"
    return f"{timed}, about {needed} would tell: --budget {_budget(budget_s)}, or a quieter machine"


def _budget(seconds: float) -> str:
    """Two digits, rounded up, since a budget that is a little short gives a pair less."""
    step = 10 ** max(0, math.floor(math.log10(seconds)) - 1)
    return f"{math.ceil(seconds / step) * step}"


def more_jobs() -> str:
    """What would give an answer that the jobs in a baseline do not."""
    return "more jobs in the baseline would tell (--calibrate --write-baseline in each), or use --against REF"


def unknown_jobs(jobs: int) -> str:
    """Why times of so few jobs in a baseline only advise."""
    known = f"{jobs} job{'' if jobs == 1 else 's'} of this code"
    return f"the baseline holds {known}, and by how much jobs of this machine differ takes {FEWEST_JOBS} to tell"


HOW_TO_ADD_JOBS = "`afftool check --calibrate --write-baseline` adds a job's times to it"


def below_floor(metric: Metric, change: float, rule: Rule) -> str:
    """Why a change that is large in percent is not held against anyone."""
    return f"a change of {metric.counted(float(units.significant(change)))} is below the floor of {rule.floor:g}"


def broken(before: Reading | None, after: Reading) -> str:
    """Why a case that cannot run fails the check."""
    ran = "it ran in the baseline and " if before is not None and before.status == "ok" else "it "
    return f"{ran}cannot run now: {after.reason}"


def _dead(reading: Reading) -> float:
    return reading.values.get("params", 0) - reading.values.get("live_params", 0)


def _percent(was: float, now: float) -> str:
    if was == 0:
        return f"{units.count(was)} -> {units.count(now)}"
    share = 100 * (now - was) / was
    return f"+{share:.1f}%" if share < 1000 else f"{units.ratio(now / was)} as many"


def _listed(what: Mapping[str, int], amounts: bool) -> str:
    named = [(name or "forward itself", grown) for name, grown in what.items()]
    return some_of([f"{name} +{units.count(grown)}" if amounts else name for name, grown in named], _SHOWN)
