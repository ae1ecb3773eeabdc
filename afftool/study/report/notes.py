"""What can be claimed, what cannot, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence

from afftool.study.report.show import counted, p_value, points
from afftool.study.results import Results
from afftool.study.significance import FEWEST, LEVEL, Comparison, fewest_seeds, smallest_p


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
    if results.plan.note:
        notes.append(results.plan.note)
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
