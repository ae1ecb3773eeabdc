"""What was trained, how, and how far it came: the lines above the tables."""

from __future__ import annotations

from afftool import units
from afftool.record import Environment
from afftool.study.results import Results


def study_facts(results: Results, environment: Environment) -> tuple[tuple[str, str], ...]:
    """Name and text of each line, in order."""
    study, plan = results.study, results.plan
    recipe = study.recipe
    done = sum(cell.finished for cell in results.cells.values())
    left = {"missing": len(plan.cells) - len(results.cells), "broken off": len(results.cells) - done}
    some = next(iter(results.cells.values()), None)
    how = (
        f"{some.cell.device}, {some.cell.dtype}, {some.cell.threads} thread(s) a cell, "
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
            f"{plan.size[0]}x{plan.size[1]}, {plan.classes} classes",
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
