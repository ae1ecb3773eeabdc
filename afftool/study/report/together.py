"""Several stored studies as one report: what each variant gains over all of them, and how its runs are spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from afftool import units
from afftool.record import SCHEMA
from afftool.report.exact import as_they_are
from afftool.report.lines import machine
from afftool.study.aggregates import RESAMPLES, Aggregate, Estimate, aggregate, middle
from afftool.study.flips import FEWEST
from afftool.study.report.words import counted, percent, points
from afftool.study.together import Member, Told, joined
from afftool.tables import Bar, Chart, Column, Report, Table

if TYPE_CHECKING:
    import pandas

SHOWN = 7
"""The table of the profile has about so many thresholds; the exact data have `FINER` times as many."""
FINER = 4
_SCALE = 1e9
"""Thresholds are round numbers, also where they are added up from steps."""


def together(told: Sequence[Told]) -> Report:
    """The studies' shared variants over all of them, against the first study's baseline.

    Raises what `joined` does.
    """
    shared = joined(told)
    studies, baseline, left = shared.studies, shared.baseline, shared.left
    levels = [middle(study.scores[baseline]) for study in studies]
    thresholds = _thresholds(studies, levels)
    found = aggregate([study.scores for study in studies], baseline, thresholds)
    others = [name for name in shared.variants if name != baseline]
    chances = [(name, one) for name in others if (one := found[name].improvement)]
    return Report(
        title="afftool compare: " + " and ".join(f"run {one.run.id}" for one in told),
        facts=_facts(studies, baseline, levels, left),
        tables=(
            _gains(found, others, baseline, studies),
            _each(studies, others, levels),
            _profile(found, shared.variants, thresholds, baseline),
        ),
        data=_data(found, thresholds, studies),
        document=_document(found, thresholds, studies, baseline, levels, left),
        charts=(
            Chart(
                f"Chance that a run scores higher than one of {baseline}",
                units.percent,
                tuple(Bar(name, one.value, one.low, one.high) for name, one in chances),
            ),
        ),
        notes=_notes(studies, baseline),
    )


def _thresholds(studies: Sequence[Member], levels: Sequence[float]) -> list[float]:
    """Round gains from the lowest tenth of all runs to the highest, 0 among them, for the exact data."""
    gains = sorted(
        v - level for study, level in zip(studies, levels, strict=True) for row in study.scores.values() for v in row
    )
    low, high = gains[len(gains) // 10], gains[-1 - len(gains) // 10]
    rough = max(high - low, 1e-4) / (SHOWN - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(times for times in (1, 2, 5, 10) if times * power >= rough * (1 - 1e-9))
    first, last = math.floor(min(low, 0) / step), math.ceil(max(high, 0) / step)
    return [round(number * step / FINER * _SCALE) / _SCALE for number in range(first * FINER, last * FINER + 1)]


def _facts(
    studies: Sequence[Member], baseline: str, levels: Sequence[float], left: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    facts = [
        ("compared", f"{counted(len(studies[0].scores), 'variant')} of {len(studies)} studies, against {baseline}")
    ]
    for study, level in zip(studies, levels, strict=True):
        spec = study.results.study
        drawn = f"data seed {spec.data_seed}" + (f" and on, {spec.data_seeds} in turn" if spec.data_seeds > 1 else "")
        facts.append(
            (
                study.label,
                f"run {study.told.run.id}, {spec.name}: {spec.host} on {spec.data}, {drawn}, "
                f"{counted(len(study.seeds), 'seed')}; interquartile mean of {baseline} {percent(level)} "
                f"{study.results.measure}; {machine(study.told.run.environment)}",
            )
        )
    return (*facts, *([("left out", "; ".join(f"{name}, {why}" for name, why in left.items()))] if left else []))


def _gains(found: Mapping[str, Aggregate], names: Sequence[str], baseline: str, studies: Sequence[Member]) -> Table:
    """The aggregates, a row a variant."""

    def part(field: str, end: str, name: str) -> float | None:
        value: float | None = getattr(getattr(found[name], field), end)
        return value

    ends = (("value", ""), ("low", "95% low"), ("high", "95% high"))
    columns: list[Column[str]] = [Column("variant", "variant", get=str)]
    for end, heading in ends:
        heading = heading or "gain (points)"
        columns.append(Column(f"gain_{end}", heading, points, numeric=True, get=partial(part, "gain", end)))
    for end, heading in ends:
        heading = heading or f"higher than {baseline}"
        columns.append(
            Column(f"improvement_{end}", heading, "{:.0%}".format, numeric=True, get=partial(part, "improvement", end))
        )
    runs = sum(len(study.seeds) for study in studies)
    columns.append(Column("runs", "runs", numeric=True, get=lambda _: runs))
    note = (
        f"Gain: the interquartile mean of a variant's runs, each in points above that of {baseline} in the same study; "
        f"every study counts alike. Higher than {baseline}: how probable it is that a run scores higher than one of "
        f"{baseline} in the same study (Agarwal et al. 2021)."
    )
    return Table.of("All studies", names, columns, note).without_empty_columns()


def _each(studies: Sequence[Member], names: Sequence[str], levels: Sequence[float]) -> Table:
    """The gain in each study alone."""

    def gain(place: int, name: str) -> float:
        return middle(studies[place].scores[name]) - levels[place]

    columns: list[Column[str]] = [Column("variant", "variant", get=str)]
    for place, study in enumerate(studies):
        heading = f"{study.label} ({study.results.measure})"
        columns.append(Column(study.label, heading, points, numeric=True, get=partial(gain, place)))
    note = "The same gain in points; whether it can be claimed there is for the study's own report."
    return Table.of("Each study", names, columns, note)


def _profile(found: Mapping[str, Aggregate], names: Sequence[str], thresholds: Sequence[float], baseline: str) -> Table:
    """The share of each variant's runs above some thresholds, as a curve would show it."""

    def share(place: int, name: str) -> Estimate:
        return found[name].profile[place]

    columns: list[Column[str]] = [Column("variant", "variant", get=str)]
    for place in range(0, len(thresholds), FINER):
        heading = points(thresholds[place])
        columns.append(Column(f"above {heading}", heading, _band, numeric=True, get=partial(share, place)))
    note = (
        f"Share of runs that gain more than so many points on {baseline}, with its interval; a curve that lies above "
        "another everywhere is the better one. CSV and JSON have more thresholds."
    )
    return Table.of("Performance profile", names, columns, note)


def _band(share: Estimate) -> str:
    """`88% (60 to 98)`."""
    interval = "" if share.low is None or share.high is None else f" ({100 * share.low:.0f} to {100 * share.high:.0f})"
    return f"{share.value:.0%}{interval}"


def _notes(studies: Sequence[Member], baseline: str) -> tuple[str, ...]:
    notes = []
    if few := [f"{study.label} has {len(study.seeds)}" for study in studies if len(study.seeds) < FEWEST]:
        notes.append(f"Intervals take {FEWEST} seeds in every study that all variants have: {', '.join(few)}.")
    else:
        notes.append(
            f"Intervals are of 95%, each of one number: {RESAMPLES:,} resamples of the seeds within each study, the "
            "same ones for all variants; shares and chances have at least Wilson's. They are about these studies: that "
            "other data or another host would say otherwise is not in them."
        )
    notes.append(
        f"Scores are set to points above {baseline} in the same study, so that neither its data nor its host's level "
        "counts as a gain. A point is not as easily won everywhere; the chance of scoring higher needs no scale, and "
        "stands beside it for that."
    )
    if failed := sum(study.failed for study in studies):
        notes.append(f"{counted(failed, 'run')} failed, and {'counts' if failed == 1 else 'count'} as a score of 0.")
    return tuple(notes)


def _numbers(
    found: Mapping[str, Aggregate], thresholds: Sequence[float]
) -> list[tuple[str, str, float | None, Estimate]]:
    """Every estimate there is: variant, quantity, threshold, and itself."""
    rows: list[tuple[str, str, float | None, Estimate]] = []
    for name, one in found.items():
        rows += [(name, what, None, e) for what, e in (("gain", one.gain), ("improvement", one.improvement)) if e]
        rows += [(name, "profile", threshold, e) for threshold, e in zip(thresholds, one.profile, strict=True)]
    return rows


def _data(found: Mapping[str, Aggregate], thresholds: Sequence[float], studies: Sequence[Member]) -> pandas.DataFrame:
    """One row an estimate; gains and thresholds are differences of scores, which are shares."""
    names = ("variant", "quantity", "threshold", "estimate", "low", "high", "studies", "runs")
    counts = (len(studies), sum(len(study.seeds) for study in studies))
    rows = [
        dict(zip(names, (name, what, threshold, e.value, e.low, e.high, *counts), strict=True))
        for name, what, threshold, e in _numbers(found, thresholds)
    ]
    return as_they_are(rows, names)


def _document(
    found: Mapping[str, Aggregate],
    thresholds: Sequence[float],
    studies: Sequence[Member],
    baseline: str,
    levels: Sequence[float],
    left: Mapping[str, str],
) -> dict[str, Any]:
    """What `--json` prints: every estimate, and the scores that it is made of."""
    variants: dict[str, dict[str, Any]] = {name: {"gain": None, "improvement": None, "profile": []} for name in found}
    for name, what, threshold, e in _numbers(found, thresholds):
        told = {"estimate": e.value, "low": e.low, "high": e.high}
        if threshold is None:
            variants[name][what] = told
        else:
            variants[name][what].append({"threshold": threshold, **told})
    return {
        "schema": SCHEMA,
        "baseline": baseline,
        "variants": variants,
        "studies": [
            {
                "run": study.told.run.id,
                "command": study.told.run.command,
                "started": study.told.run.started,
                "environment": study.told.run.environment.to_dict(),
                "study": study.results.plan.study,
                "measure": study.results.measure,
                "level": level,
                "seeds": list(study.seeds),
                "scores": {name: list(row) for name, row in study.scores.items()},
            }
            for study, level in zip(studies, levels, strict=True)
        ],
        "left_out": dict(left),
    }
