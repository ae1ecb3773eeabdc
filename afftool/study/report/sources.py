"""Which sources of variance a study's intervals hold, and which they do not (Bouthillier et al. 2021)."""

from __future__ import annotations

import math
import statistics

from afftool import units
from afftool.study.results import Results


def subsets(results: Results) -> str:
    """What the seeds of a study train on, where that is not the same for all: `, 8 subsets (data seeds 0 to 7)`."""
    study = results.study
    last = study.data_seed + study.data_seeds - 1
    return (
        f"; {study.data_seeds} subsets in turn (data seeds {study.data_seed} to {last})" if study.data_seeds > 1 else ""
    )


def variance_note(results: Results) -> str:
    """One paragraph: what varies from seed to seed, what does not, and how large the test images' share alone is."""
    study = results.study
    recipes = [study.recipe_of(variant) for variant in study.variants]
    varied = ["initialisation", "the order of the data"]
    varied += ["augmentation"] if any(r.crop or r.flip or r.mixup for r in recipes) else []
    fixed: list[str] = []
    (varied if study.data_seeds > 1 else fixed).append("the choice of training images")
    (varied if results.plan.test_splits else fixed).append("the choice of test images")
    note = (
        f"This was trained on one data set, with one recipe, tuned for none of the variants. Intervals hold what seeds "
        f"vary: {_listed(varied)}. They do not hold {_listed([*fixed, 'the recipe', 'the data set'], 'or')} "
        "(Bouthillier et al. 2021)."
    )
    if 1 < study.data_seeds < len(study.seeds):
        note += (
            f" Seeds that share one of the {study.data_seeds} training subsets resemble each other, so that choice is "
            "held in part, and what is claimed is of these subsets; "
            f"--data-seeds {len(study.seeds)} gives each seed its own."
        )
    return note + _test_images(results)


def _test_images(results: Results) -> str:
    """How far a score lies from that on all images there could be, by the number of test images alone."""
    images, scores = results.plan.test_images, [s for seeds in results.scores().values() for s in seeds.values()]
    if not scores or results.plan.test_splits:
        return ""
    if results.plan.task != "classify":
        return f" There are {images:,} test images; what their choice does to a mean over pixels is not known here."
    level = statistics.fmean(scores)
    error = math.sqrt(level * (1 - level) / images)
    return (
        f" With {images:,} test images a score of {units.percent(level)} has a standard error of {100 * error:.2f} "
        "points from their choice alone (binomial); variants are scored on the same ones, so a difference has less "
        "where they err on the same."
    )


def _listed(words: list[str], word: str = "and") -> str:
    """`a, b and c`."""
    return f" {word} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
