"""Intervals of medians and of ratios, as `bench` gives them.

"One process" is the interval that a process's own samples give (`stats.series_interval`), "fresh processes" what a row
timed in several has in its record. A share of those that "said" anything leaves out where there is no interval. Of
regimes that it has not met one process knows nothing: where they last 93 and 40 samples, its interval is right once it
has met some thirty of each, and nothing is wanted of it before; several processes meet them. What nothing is wanted of
says why a bench takes five processes.
"""

from __future__ import annotations

from refereed.made_up_times import (
    SLOW_KIND,
    drifts,
    each_its_own,
    hardly_wider,
    in_shared_rounds,
    of_one,
    of_pairs,
    of_several,
    of_two_kinds,
    parts,
    raced_in_processes,
    rising,
    seen,
    splits,
    stopped_early,
    stops,
    within,
    wrongly,
)
from refereed.trial import Trial
from refereed.worlds import WITHIN

LENGTHS = (12, 20, 36, 60, 200, 1000)
STEADY = tuple(name for name in WITHIN if name != "two regimes")
SEEN_WHOLE = 4000
"""Samples in which two regimes of 93 and 40 come thirty times: so many one process needs to know both."""


def wanted(world: str) -> float:
    """How often an interval that is called 95% is to hold the truth."""
    return 0.90 if world == "AR .9" else 0.93


def _one_process() -> list[Trial]:
    what = "one process's interval holds the median: {} samples"
    found = [
        Trial(
            what=what.format(count),
            world=name,
            run=of_one(WITHIN[name], count),
            runs=1500,
            few=150 if count < 1000 else 0,
            least=wanted(name),
        )
        for name in STEADY
        for count in LENGTHS
    ]
    regimes = WITHIN["two regimes"]
    found += [
        Trial(what=what.format(count), world="two regimes", run=of_one(regimes, count), runs=1000, few=0)
        for count in (60, 200, 1000)
    ]
    found.append(
        Trial(
            what=what.format(SEEN_WHOLE),
            world="two regimes",
            run=of_one(regimes, SEEN_WHOLE),
            runs=1000,
            few=0,
            least=0.93,
        )
    )
    narrow = "it is at most 1.3 times as wide as if samples were known to be independent: 200 samples"
    found.append(Trial(what=narrow, world="independent", run=hardly_wider, runs=1500, few=150, least=0.5))
    return found


def _ratios() -> list[Trial]:
    return [
        Trial(
            what=f"one pair's interval of the ratio holds 1: {count} rounds",
            world=f"{name}, {'shared' if equals is in_shared_rounds else 'each its own'}",
            run=equals(WITHIN[name], count),
            runs=1000,
            few=100 if count == 24 else 0,
            least=wanted(name),
        )
        for equals, names in ((in_shared_rounds, tuple(WITHIN)), (each_its_own, STEADY))
        for name in names
        for count in (12, 24, 60, 400)
    ]


def _processes() -> list[Trial]:
    found = [
        Trial(
            what=f"the interval of {count} fresh processes holds the time",
            world=f"{name}, processes {between:.0%}",
            run=of_several(WITHIN[name], count, between),
            runs=2000,
            few=60 if between == 0.02 else 0,
            least=wanted(name),
        )
        for name in STEADY
        for between in (0.01, 0.02, 0.03)
        for count in (3, 5)
    ]
    found += [
        Trial(
            what=f"the interval of {count} pairs of processes holds 1",
            world=f"{name} shared, processes {between:.0%}",
            run=of_pairs(WITHIN[name], count, between),
            runs=2000,
            few=60 if between == 0.02 else 0,
            least=0.93,
        )
        for name in ("independent", "AR .9", "two regimes")
        for between in (0.01, 0.02, 0.03)
        for count in (3, 5)
    ]
    found += [
        Trial(
            what=f"{count} fresh processes put the time within {precision:.0%}",
            world="independent, processes 2%",
            run=within(precision, count, 0.02),
            runs=1000,
            few=0,
        )
        for precision in (0.03, 0.05, 0.10)
        for count in (3, 4, 5)
    ]
    found += [
        Trial(
            what=f"{count} pairs of processes show that one side takes 10% longer",
            world=f"independent, processes {between:.0%}",
            run=seen(1.10, count, between),
            runs=1000,
            few=0,
        )
        for between in (0.01, 0.02, 0.03)
        for count in (3, 4, 5, 8)
    ]
    found += [
        Trial(
            what=f"the interval of {count} fresh processes holds their mean",
            world=f"{SLOW_KIND:.0%} take twice as long",
            run=of_two_kinds(count),
            runs=1000,
            few=0,
        )
        for count in (3, 5, 8, 15)
    ]
    found += [
        Trial(
            what=f"processes of one kind are told as two groups: {count}",
            world=f"processes {between:.0%}",
            run=splits(count, between),
            runs=2000,
            few=300 if between == 0.03 else 0,
            most=0.01 if between == 0.03 else None,
        )
        for between in (0.03, 0.10)
        for count in (3, 5, 15)
    ]
    found += [
        Trial(
            what=f"two kinds of processes are told apart where both came: {count}",
            world=f"processes {between:.0%}",
            run=parts(count, between),
            runs=2000,
            few=300 if between == 0.03 else 0,
            least=0.95 if between == 0.03 else None,
        )
        for between in (0.03, 0.10)
        for count in (3, 5, 15)
    ]
    return found


def _stopping() -> list[Trial]:
    found = []
    for name in (name for name in WITHIN if name != "drifting"):  # what drifts has no truth before it ends
        for count, precision in ((400, 0.02), (2000, 0.01)):
            what = f"what precision stopped within {precision:.0%} holds the median: a budget of {count} samples"
            limit = None if name == "two regimes" else wanted(name)
            run = stopped_early(WITHIN[name], count, precision)
            few = 40 if count == 400 and limit is not None else 0
            found.append(Trial(what=what, world=name, run=run, runs=500, few=few, least=limit))
    found += [
        Trial(
            what="precision of 1% stops it early and wrongly: a budget of 400 samples",
            world=name,
            run=wrongly(WITHIN[name], 400, 0.01),
            runs=500,
            few=0,
            most=None if name == "two regimes" else 1 - wanted(name),
        )
        for name in WITHIN
        if name != "drifting"
    ]
    found += [
        Trial(
            what="precision of 1% ends it early: a budget of 400 samples",
            world=name,
            run=stops(WITHIN[name], 400, 0.01),
            runs=300,
            few=0,
        )
        for name in ("independent", "AR .5")
    ]
    found += [
        Trial(
            what=f"{count} fresh processes that stop as they do hold the time: 200 samples each",
            world=f"{name}, processes 1%",
            run=raced_in_processes(WITHIN[name], count, 200, 0.01),
            runs=500,
            few=0,
            least=wanted(name),
        )
        for name in ("independent", "AR .5", "AR .9", "two regimes")
        for count in (3, 5)
    ]
    return found


def _drift() -> list[Trial]:
    most = {"independent": 0.02, "AR .5": 0.02, "AR .9": 0.05, "heavy tails": 0.02}
    found = [
        Trial(
            what=f"a drift is told where there is none: {count} samples",
            world=name,
            run=drifts(WITHIN[name], count),
            runs=1000,
            few=60 if count == 60 else 0,
            most=limit,
        )
        for name, limit in most.items()
        for count in (36, 60, 200, 1000)
    ]
    found += [
        Trial(
            what=f"a drift of 4% is told: {count} samples",
            world="noise of 1%",
            run=drifts(rising, count),
            runs=500,
            few=40,
            least=0.95,
        )
        for count in (60, 200)
    ]
    return found


TRIALS: tuple[Trial, ...] = (*_one_process(), *_ratios(), *_processes(), *_stopping(), *_drift())
