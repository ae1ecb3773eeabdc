"""A study's cells -> tables in words that claim no more than the seeds allow. Pure; nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from afftool import units
from afftool.record import SCHEMA, Environment, Record
from afftool.report.model import Bar, Chart, Column, Report, Table
from afftool.spec import HostSpec
from afftool.study import published
from afftool.study.cells import CellRecord
from afftool.study.latency import Benched, benched
from afftool.study.significance import (
    FEWEST,
    LEVEL,
    Comparison,
    Summary,
    compare,
    dominated,
    fewest_seeds,
    kendall,
    smallest_p,
    summarize,
)
from afftool.study.spec import StudySpec


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A study's plan as stored (`Plan.to_dict`), and what is known of its cells by variant and seed."""

    study: StudySpec
    plan: Mapping[str, Any]
    cells: Mapping[tuple[str, int], CellRecord]
    pairs: bool = False
    latency: Mapping[str, Benched] = dataclasses.field(default_factory=dict)

    @property
    def measure(self) -> str:
        """What the score is: accuracy, or mIoU."""
        return "mIoU" if self.plan["task"] == "segment" else "accuracy"

    def scores(self) -> dict[str, dict[int, float]]:
        """Scores by variant and seed, of the cells that have one."""
        found: dict[str, dict[int, float]] = {variant.name: {} for variant in self.study.variants}
        for (name, seed), cell in self.cells.items():
            if cell.score is not None:
                found[name][seed] = cell.score
        return found


def outcome(
    plan: Mapping[str, Any],
    known: Mapping[str, CellRecord],
    *,
    pairs: bool = False,
    records: Sequence[tuple[Environment, Record]] = (),
) -> Outcome:
    """Match a stored plan with the cells known by identity, and with latencies benched of the same networks."""
    study = StudySpec.from_toml(plan["study"])
    cells = {(name, seed): known[identity] for name, seed, identity in plan["cells"] if identity in known}
    variants = {variant.name: (variant.fusion, plan["facts"][variant.name]["host"]) for variant in study.variants}
    return Outcome(study=study, plan=plan, cells=cells, pairs=pairs, latency=benched(variants, records))


def study_report(outcome: Outcome, environment: Environment) -> Report:
    """The whole report: who was trained how, scores, differences, cost, the paper's numbers, every seed."""
    scores = outcome.scores()
    summaries = {name: summarize(values) for name, values in scores.items() if values}
    wanted = outcome.study.comparisons(pairs=outcome.pairs)
    comparisons = compare(scores, wanted)
    tables = [
        _scores_table(outcome, summaries),
        _differences_table(outcome, comparisons),
        _cost_table(outcome, summaries),
        _bands_table(outcome),
        _signal_table(outcome),
        _published_table(outcome, summaries),
        _seeds_table(outcome, scores),
    ]
    bars = tuple(Bar(name, s.mean, s.low, s.high) for name, s in summaries.items())
    return Report(
        title=f"Ablation: {outcome.study.name}",
        facts=_facts(outcome, environment),
        tables=tuple(table for table in tables if table is not None),
        data=_data(outcome, summaries, comparisons),
        document=_document(outcome, environment, summaries, comparisons),
        charts=(Chart(f"{outcome.measure}, mean and 95% interval", _percent, bars),) if bars else (),
        notes=_notes(outcome, comparisons),
    )


def _facts(outcome: Outcome, environment: Environment) -> tuple[tuple[str, str], ...]:
    study, plan = outcome.study, outcome.plan
    recipe = study.recipe
    done = sum(cell.finished for cell in outcome.cells.values())
    left = {"missing": len(plan["cells"]) - len(outcome.cells), "broken off": len(outcome.cells) - done}
    some = next(iter(outcome.cells.values()), None)
    how = (
        f"{some.cell.device}, {some.cell.dtype}, {some.cell.threads} thread(s) a cell, "
        f"{'compiled' if some.cell.compiled else 'not compiled'}, torch {some.cell.torch}"
        if some
        else "nothing trained yet"
    )
    seconds = sum(cell.train_s or 0 for cell in outcome.cells.values())
    changes = ", ".join(f"{key}={value}" for key, value in recipe.changes().items())
    facts = [
        ("question", study.summary),
        ("host", study.host),
        (
            "data",
            f"{study.data}: {plan['train_images']:,} training and {plan['test_images']:,} test images of "
            f"{plan['size'][0]}x{plan['size'][1]}, {plan['classes']} classes",
        ),
        ("recipe", f"{recipe.name}: {recipe.epochs} epochs, batch {recipe.batch}{'; ' + changes if changes else ''}"),
        ("seeds", f"{len(study.seeds)} ({', '.join(map(str, study.seeds))}), the same for every variant"),
        (
            "cells",
            ", ".join([f"{done} of {len(plan['cells'])} done", *(f"{n} {what}" for what, n in left.items() if n)]),
        ),
        ("trained with", f"{how}; {units.seconds(seconds)} of training in all"),
        ("machine", f"{environment.gpu or environment.cpu}, {environment.cores} cores"),
    ]
    return tuple(facts + ([("data source", plan["citation"])] if plan.get("citation") else []))


def _scores_table(outcome: Outcome, summaries: Mapping[str, Summary]) -> Table:
    columns = (
        Column("variant", "variant"),
        Column("fusion", "fusion"),
        Column("score", outcome.measure, _percent, numeric=True),
        Column("low", "95% low", _percent, numeric=True),
        Column("high", "95% high", _percent, numeric=True),
        Column("seeds", "seeds", numeric=True),
        Column("failed", "failed", numeric=True),
        Column("note", "note"),
    )
    rows = []
    for variant in outcome.study.variants:
        summary = summaries.get(variant.name)
        mine = [cell for (name, _), cell in outcome.cells.items() if name == variant.name]
        failures = [cell for cell in mine if cell.status == "failed"]
        rows.append(
            (
                variant.name,
                variant.fusion,
                summary.mean if summary else None,
                summary.low if summary else None,
                summary.high if summary else None,
                len(summary.values) if summary else 0,
                len(failures),
                "; ".join(dict.fromkeys(cell.reason or "failed" for cell in failures)) or None,
            )
        )
    best = max((s.mean for s in summaries.values()), default=None)
    marked = frozenset((i, 2) for i, row in enumerate(rows) if best is not None and row[2] == best)
    note = (
        f"{outcome.measure} on the test split after the last epoch; the interval is Student's t over seeds. "
        "The highest mean is marked; whether it is higher than another is for the next table."
    )
    return Table(title="Scores", columns=columns, rows=tuple(rows), best=marked, note=note)


def _differences_table(outcome: Outcome, comparisons: Sequence[Comparison]) -> Table:
    columns = (
        Column("variant", "variant"),
        Column("against", "against"),
        Column("difference", "difference (points)", _points, numeric=True),
        Column("low", "95% low", _points, numeric=True),
        Column("high", "95% high", _points, numeric=True),
        Column("effect", "effect size", lambda v: f"{v:+.2f}", numeric=True),
        Column("p", "p", _p, numeric=True),
        Column("p_corrected", "p, corrected", _p, numeric=True),
        Column("detectable", "smallest detectable", _points_plain, numeric=True),
        Column("claim", "claim"),
    )
    rows = tuple(tuple(getattr(c, column.name) for column in columns) for c in comparisons)
    note = (
        "Paired by seed. p: exact sign-flip permutation test; corrected by Holm for "
        f"{_counted(len(comparisons), 'comparison')}. Intervals are of one comparison each. Effect size: mean over "
        "deviation of the paired differences. Smallest detectable: the true difference that so many seeds show with "
        "80% probability."
    )
    return Table(title="Differences", columns=columns, rows=rows, note=note)


def _cost_table(outcome: Outcome, summaries: Mapping[str, Summary]) -> Table:
    facts, latency = outcome.plan["facts"], outcome.latency
    timed = {name for name in summaries if name in latency}
    points = {}
    for name, summary in summaries.items():
        costs = [float(facts[name]["params"])]
        if all(facts[n]["macs"] is not None for n in summaries):
            costs.append(float(facts[name]["macs"]))
        if len(timed) == len(summaries):
            costs.append(latency[name].latency_ms)
        points[name] = (summary.mean, costs)
    losers = dominated(points)
    speeds = {
        name: [c.images_per_s for (n, _), c in outcome.cells.items() if n == name and c.images_per_s] for name in facts
    }
    base = facts[outcome.study.baseline]["params"]
    rows = tuple(
        (
            variant.name,
            summaries[variant.name].mean if variant.name in summaries else None,
            facts[variant.name]["params"],
            facts[variant.name]["params"] / base - 1,
            facts[variant.name]["macs"],
            latency[variant.name].latency_ms if variant.name in latency else None,
            sum(speeds[variant.name]) / len(speeds[variant.name]) if speeds[variant.name] else None,
            losers.get(variant.name),
        )
        for variant in outcome.study.variants
    )
    columns = (
        Column("variant", "variant"),
        Column("score", outcome.measure, _percent, numeric=True),
        Column("params", "params", units.count, numeric=True),
        Column("params_vs_baseline", f"vs {outcome.study.baseline}", lambda v: f"{v:+.2%}", numeric=True),
        Column("macs", "MACs", units.scaled, numeric=True),
        Column("latency_ms", "latency", units.milliseconds, numeric=True),
        Column("images_per_s", "trained images/s", lambda v: f"{v:,.0f}", numeric=True),
        Column("dominated_by", "dominated by"),
    )
    note = (
        "Whole network, one image. Dominated: another variant scores at least as high, by the means, and costs no more."
    )
    if latency:
        note += f" Latency as benched: {next(iter(latency.values())).how}."
    return Table(title="Cost beside score", columns=columns, rows=rows, note=note).without_empty_columns()


def _bands_table(outcome: Outcome) -> Table | None:
    bands = list(dict.fromkeys(band for cell in outcome.cells.values() for band in cell.bands))
    if not bands:
        return None
    rows = []
    for variant in outcome.study.variants:
        mine = [cell.bands for (name, _), cell in outcome.cells.items() if name == variant.name and cell.bands]
        means = (_mean([cell[band] for cell in mine if band in cell]) for band in bands)
        rows.append((variant.name, *means))
    columns = (Column("variant", "variant"), *(Column(band, band, _percent, numeric=True) for band in bands))
    return Table(
        title=f"{outcome.measure.capitalize() if outcome.measure == 'accuracy' else outcome.measure} by object size",
        columns=columns,
        rows=tuple(rows),
        note="Means over seeds; for reading, not for claims: these differences are not tested.",
    )


def _signal_table(outcome: Outcome) -> Table | None:
    if not outcome.study.signal:
        return None
    rows = []
    for variant in outcome.study.variants:
        mine = [cell.signal for (name, _), cell in outcome.cells.items() if name == variant.name and cell.signal]
        if mine:
            first, last = _mean([s[0] for s in mine]), _mean([s[-1] for s in mine])
            path = " ".join(units.significant(_mean([s[i] for s in mine]) or 0) for i in range(len(mine[0])))
            rows.append((variant.name, first, last, last / first if first and last else None, path))
    columns = (
        Column("variant", "variant"),
        Column("first", "first fusion", units.significant, numeric=True),
        Column("last", "last fusion", units.significant, numeric=True),
        Column("growth", "growth", units.ratio, numeric=True),
        Column("path", "all fusions, in order"),
    )
    note = "Root mean square of what each fusion puts out, before training, on training images; means over seeds."
    return Table(title="The signal at initialisation", columns=columns, rows=tuple(rows), note=note)


def _published_table(outcome: Outcome, summaries: Mapping[str, Summary]) -> Table | None:
    key = outcome.study.published
    if key is None or not published.known(key):
        return None
    rows, ours, theirs, host = [], [], [], HostSpec.parse(outcome.study.host)
    for variant in outcome.study.variants:
        paper = published.score(key, variant.name, outcome.study.host_of(variant))
        mean = summaries[variant.name].mean if variant.name in summaries else None
        if paper is not None:
            rows.append((variant.name, mean, paper))
            if mean is not None:
                ours.append(mean)
                theirs.append(paper)
    if not rows:
        return None
    tau = kendall(ours, theirs)
    agreement = "too few variants to rank" if tau is None else f"Kendall's tau = {tau:+.2f} over {len(ours)} variants"
    return Table(
        title=f"Beside the paper ({published.SOURCE}, {published.table_name(key)})",
        columns=(
            Column("variant", "variant"),
            Column("score", "here", _percent, numeric=True),
            Column("published", "paper", _percent, numeric=True),
        ),
        rows=tuple(rows),
        note=f"Rank agreement: {agreement}. Different data, length of training and classes: the paper trained on "
        f"{published.TRAINED_ON[host.name]}. Only the order can be compared, and that is weak evidence.",
    )


def _seeds_table(outcome: Outcome, scores: Mapping[str, Mapping[int, float]]) -> Table:
    seeds = outcome.study.seeds
    columns = (Column("variant", "variant"), *(Column(f"seed {s}", f"seed {s}", _percent, numeric=True) for s in seeds))
    rows = tuple((name, *(values.get(seed) for seed in seeds)) for name, values in scores.items())
    return Table(title="Every seed", columns=columns, rows=rows)


def _notes(outcome: Outcome, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """What cannot be claimed, and why, in words."""
    notes = _too_few(comparisons)
    shown = [c for c in comparisons if c.claim != "cannot tell"]
    for c in shown:
        notes.append(
            f"{c.variant} is {c.claim} than {c.against} here: {_points(c.difference)} points "
            f"(corrected p = {_p(c.p_corrected)})."
        )
    if not shown and comparisons:
        notes.append("No difference can be claimed. That is not the same as no difference: see the intervals.")
    if any(cell.status == "failed" for cell in outcome.cells.values()):
        notes.append(
            "Some cells failed. They have no score, so means and differences are over the seeds that survived, which "
            "flatters a variant that diverges."
        )
    notes.append(
        "This was trained on one data set, with one recipe, tuned for none of the variants; seeds vary initialisation, "
        "order and augmentation, not the data."
    )
    return tuple(notes)


def _too_few(comparisons: Sequence[Comparison]) -> list[str]:
    """One note for each number of seeds that is too small, with the comparisons it is of where others have more."""
    notes, count = [], len(comparisons)
    by_seeds: dict[int, list[str]] = {}
    for c in comparisons:
        by_seeds.setdefault(c.seeds, []).append(f"{c.variant} against {c.against}")
    for seeds, names in sorted(by_seeds.items()):
        of = "" if len(names) == count else f" ({'; '.join(names)})"
        reachable = smallest_p(seeds, count)
        if seeds == 0:
            notes.append(f"No seed has both scores{of}: nothing can be compared.")
        elif seeds < FEWEST:
            notes.append(
                f"With {_counted(seeds, 'seed')} no difference can be claimed{of}, however large: if all differences "
                f"have one sign, the test still gives p = {smallest_p(seeds):.2g}. The intervals are shown to plan "
                f"with; {FEWEST} seeds are the fewest for one comparison, {fewest_seeds(count)} for the best of "
                f"{count}."
            )
        elif reachable > LEVEL:
            notes.append(
                f"With {seeds} seeds and {count} comparisons the smallest corrected p is {reachable:.2g}{of}: at least "
                f"one comparison cannot be claimed, however large. {fewest_seeds(count)} seeds would be enough."
            )
    return notes


def _data(outcome: Outcome, summaries: Mapping[str, Summary], comparisons: Sequence[Comparison]) -> Table:
    """One row a variant with exact numbers, its comparison with its baseline, and every seed's score."""
    seeds, by_variant = outcome.study.seeds, {}
    baselines = dict(outcome.study.comparisons())
    for c in comparisons:
        if baselines.get(c.variant) == c.against:
            by_variant[c.variant] = c
    compared = [f.name for f in dataclasses.fields(Comparison) if f.name not in ("variant", "seeds")]
    renamed = {"low": "difference_low", "high": "difference_high"}
    names = [
        "study",
        "variant",
        "fusion",
        "host",
        "data",
        "epochs",
        "measure",
        "score",
        "low",
        "high",
        "seeds",
        "failed",
    ]
    names += [
        "params",
        "macs",
        "latency_ms",
        *(renamed.get(name, name) for name in compared),
        *(f"seed_{seed}" for seed in seeds),
    ]
    rows = []
    for variant in outcome.study.variants:
        summary, facts = summaries.get(variant.name), outcome.plan["facts"][variant.name]
        comparison = by_variant.get(variant.name)
        failed = sum(c.status == "failed" for (name, _), c in outcome.cells.items() if name == variant.name)
        timed = outcome.latency.get(variant.name)
        rows.append(
            (
                outcome.study.name,
                variant.name,
                variant.fusion,
                facts["host"],
                outcome.study.data,
                outcome.study.recipe_of(variant).epochs,
                outcome.measure,
                summary.mean if summary else None,
                summary.low if summary else None,
                summary.high if summary else None,
                len(summary.values) if summary else 0,
                failed,
                facts["params"],
                facts["macs"],
                timed.latency_ms if timed else None,
                *(getattr(comparison, name) if comparison else None for name in compared),
                *((summary.values.get(seed) if summary else None) for seed in seeds),
            )
        )
    return Table(title="", columns=tuple(Column(name, name) for name in names), rows=tuple(rows))


def _document(
    outcome: Outcome, environment: Environment, summaries: Mapping[str, Summary], comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "environment": environment.to_dict(),
        "study": dict(outcome.plan),
        "variants": {
            name: {"mean": s.mean, "low": s.low, "high": s.high, "seeds": {str(k): v for k, v in s.values.items()}}
            for name, s in summaries.items()
        },
        "comparisons": [dataclasses.asdict(c) for c in comparisons],
        "cells": [
            {"variant": name, "seed": seed, **cell.to_dict()} for (name, seed), cell in sorted(outcome.cells.items())
        ],
    }


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%"


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.2f}"


def _points_plain(value: float) -> str:
    return f"{100 * value:.2f}"


def _p(value: float | None) -> str:
    return "" if value is None else ("<0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}")
