"""A study in words: what was trained and how, what can be claimed and what cannot, and how its numbers are written."""

from __future__ import annotations

from collections.abc import Sequence

from afftool import units
from afftool.record import Environment
from afftool.spec import show_size
from afftool.study.report.sources import subsets, variance_note
from afftool.study.results import Results
from afftool.study.significance import FEWEST, LEVEL, Comparison, fewest_seeds, smallest_p


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


def study_facts(results: Results, environment: Environment) -> tuple[tuple[str, str], ...]:
    """Name and text of each line, in order."""
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
        (
            "cells",
            ", ".join([f"{done} of {len(plan.cells)} done", *(f"{n} {what}" for what, n in left.items() if n)]),
        ),
        ("trained with", f"{how}; {units.seconds(seconds)} of training in all"),
        ("machine", f"{environment.gpu or environment.cpu}, {environment.cores} cores"),
    ]
    return tuple(facts + ([("data source", plan.citation)] if plan.citation else []))


def study_notes(results: Results, comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """Too few seeds first, then every claim, then what the reader has to keep in mind."""
    notes = _too_few(comparisons)
    shown = [c for c in comparisons if c.claim != "cannot tell"]
    for c in shown:
        notes.append(
            f"{c.variant} is {c.claim} than {c.against} here: {points(c.difference)} points "
            f"(corrected p = {p_value(c.p_corrected)})."
        )
    if not shown and comparisons:
        notes.append("No difference can be claimed. That is not the same as no difference: see the intervals.")
    if any(cell.status == "failed" for cell in results.cells.values()):
        notes.append(
            "Some cells failed. They have no score, so means and differences are over the seeds that survived, which "
            "flatters a variant that diverges."
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
                f"With {counted(seeds, 'seed')} no difference can be claimed{of}, however large: if all differences "
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
