"""A study in words: what was trained and how, what can be claimed and what cannot, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from afftool import units
from afftool.record import Environment
from afftool.spec import show_size
from afftool.study.collapses import collapsed, unseen
from afftool.study.flips import FEWEST
from afftool.study.power import detectable_deviations
from afftool.study.report.sources import subsets, variance_note
from afftool.study.results import Results
from afftool.study.significance import Comparison, Summary


def percent(value: float) -> str:
    """A share: `71.25%`."""
    return units.percent(value, 2)


def points(value: float | None) -> str:
    """A difference between shares, in points and with its sign: `+1.20`."""
    return "" if value is None else f"{100 * value:+.2f}"


def points_plain(value: float) -> str:
    """A distance between shares, in points: `1.20`."""
    return f"{100 * value:.2f}"


def p_value(value: float | None) -> str:
    """A p-value, with the digits that matter near the level."""
    return "" if value is None else ("<0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}")


def counted(number: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def study_facts(results: Results, environment: Environment, rule: str = "") -> tuple[tuple[str, str], ...]:
    """Name and text of each line, in order; `rule` is by what seeds that were added count."""
    study, plan = results.study, results.plan
    recipe = study.recipe
    done = sum(cell.finished for cell in results.cells.values())
    left = {"missing": len(plan.cells) - len(results.cells), "broken off": len(results.cells) - done}
    some = next(iter(results.cells.values()), None)
    gpus = " and ".join(results.gpus())
    how = (
        f"{some.cell.device}{f' on {gpus}' if gpus else ''}, {some.cell.dtype}, {some.cell.threads} thread(s) a cell, "
        f"{'compiled' if some.cell.compiled else 'not compiled'}, torch {some.cell.torch}"
        if some
        else "nothing trained yet"
    )
    seconds = sum(cell.train_s or 0 for cell in results.cells.values())
    changes = ", ".join(f"{key}={value}" for key, value in recipe.changes().items())
    facts = [
        ("question", study.summary),
        ("host", study.host),
        (
            "data",
            f"{study.data}: {plan.train_images:,} training and {plan.test_images:,} test images of "
            f"{show_size(plan.size)}, {plan.classes} classes{subsets(results)}",
        ),
        ("recipe", f"{recipe.name}: {recipe.epochs} epochs, batch {recipe.batch}{'; ' + changes if changes else ''}"),
        ("seeds", f"{len(study.seeds)} ({', '.join(map(str, study.seeds))}), the same for every variant"),
        *([("looks", rule)] if rule else []),
        ("power", power_words(len((results.looks or (study.seeds,))[0]), len(study.comparisons(pairs=results.pairs)))),
        (
            "cells",
            ", ".join([f"{done} of {len(plan.cells)} done", *(f"{n} {what}" for what, n in left.items() if n)]),
        ),
        ("trained with", f"{how}; {units.seconds(seconds)} of training in all"),
        ("machine", f"{environment.gpu or environment.cpu}, {environment.cores} cores"),
    ]
    return tuple(facts + ([("data source", plan.citation)] if plan.citation else []))


def interval_name(summaries: Mapping[str, Summary]) -> str:
    """What lies around a score's median: `95% interval`, or `range` where a variant has too few runs for one."""
    return "range" if any(s.interval == "range" for s in summaries.values()) else "95% interval"


def power_words(seeds: int, comparisons: int) -> str:
    """What so many seeds can show, in a sentence to plan with."""
    what = f"{counted(seeds, 'seed')}, {counted(comparisons, 'comparison')}"
    deviations = detectable_deviations(seeds, comparisons)
    if deviations is None:
        return f"{what}: no difference can be claimed, however large; {FEWEST} seeds are the fewest that can"
    return f"{what}: a difference of {deviations:.1f} deviations of the paired differences shows in 80% of studies"


def study_notes(results: Results, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Too few seeds first, then every claim, then what the reader has to keep in mind."""
    notes = _too_few(comparisons)
    notes += [note for c in comparisons if (note := _claimed(c))]
    withheld: dict[str, list[str]] = {}
    for c in comparisons:
        if c.withheld:
            withheld.setdefault(c.withheld, []).append(f"{c.variant} against {c.against}")
    for why, names in withheld.items():
        notes.append(f"{why[0].upper()}{why[1:]} ({'; '.join(names)}).")
    shown = [c for c in comparisons if c.claim in ("better", "worse")]
    if not shown and any(c.claim == "cannot tell" and c.low is not None for c in comparisons):
        notes.append("No difference can be claimed. That is not the same as no difference: see the intervals.")
    notes += _collapses(results, comparisons, shown)
    if any(results.failed().values()):
        notes.append(
            "Some cells failed and have no score. In a comparison a failed run counts as the lowest of the two "
            "variants' that did not collapse, in a median as the lowest of all; a mean score is over the runs that did "
            "not fail, which flatters a variant that diverges."
        )
    if len(gpus := results.gpus()) > 1:
        notes.append(
            f"Cells were trained on different GPUs ({' and '.join(f'{n} on {gpu}' for gpu, n in gpus.items())}), which "
            "round differently: part of a difference between two cells may be that. Trained images/s are "
            "means over all of them."
        )
    if results.plan.note:
        notes.append(results.plan.note)
    notes += results.plan.notes or ()
    notes.append(variance_note(results))
    return tuple(notes)


def _claimed(c: Comparison) -> str:
    """A claim as a sentence; nothing where there is none."""
    within = f"no more than {points_plain(c.margin)} points apart" if c.margin and c.within else ""
    if c.claim == "the same":
        return f"{c.variant} and {c.against} are {within} here."
    if c.claim == "cannot tell":
        return ""
    return (
        f"{c.variant} is {c.claim} than {c.against} here: {points(c.difference)} points "
        f"(corrected p = {p_value(c.p_corrected)}){f', and {within}' if within else ''}."
    )


def _collapses(results: Results, comparisons: Sequence[Comparison], shown: Sequence[Comparison]) -> list[str]:
    """The runs that collapsed, by name; and what claims are worth where none did."""
    scores = results.scores()
    named = [
        f"{name} at seed {seed} ({percent(scores[name][seed])})"
        for name, seeds in collapsed(scores).items()
        for seed in sorted(seeds)
    ]
    notes = []
    if named:
        means = [
            f"{c.variant} against {c.against} {points(c.difference_of_all)}"
            for c in comparisons
            if c.difference_of_all is not None
        ]
        notes.append(
            f"Collapsed, far below the other runs of their variant: {'; '.join(named)}. Comparisons are of a typical "
            "run: these are set apart, and a variant with more of them is not called better."
            + (f" With them the mean differences are: {'; '.join(means)} points." if means else "")
        )
    elif shown:
        runs = min(c.seeds for c in shown)
        notes.append(
            f"Claims are about a typical run. No run collapsed, which {counted(runs, 'seed')} cannot rule out: up to "
            f"{unseen(runs):.0%} of a variant's runs may (95%)."
        )
    return notes


def _too_few(comparisons: Sequence[Comparison]) -> list[str]:
    """One note for each number of seeds that is too small, with the comparisons it is of where others have more."""
    notes, count = [], len(comparisons)
    by_seeds: dict[int, list[str]] = {}
    for c in comparisons:
        by_seeds.setdefault(c.seeds, []).append(f"{c.variant} against {c.against}")
    for seeds, names in sorted(by_seeds.items()):
        of = "" if len(names) == count else f" ({'; '.join(names)})"
        if seeds == 0:
            notes.append(f"No seed has both scores{of}: nothing can be compared.")
        elif seeds < FEWEST:
            notes.append(
                f"With {counted(seeds, 'seed')} no difference can be claimed{of}, however large: if all differences "
                f"have one sign, the test still gives p = {2 / 2**seeds:.2g}. {FEWEST} seeds are the fewest."
            )
    return notes
