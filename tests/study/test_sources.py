"""What a report says its intervals hold, and what they do not."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from made_up_studies import made

from afftool.study.grids import study
from afftool.study.report.sources import variance_note
from afftool.study.results import results
from afftool.study.spec import StudySpec


def note(*, score: Any = lambda name, seed: 0.8, plan: dict[str, Any] | None = None, **changes: Any) -> str:
    spec: StudySpec = dataclasses.replace(study("scale"), **changes)
    stored, known = made(spec, score)
    return variance_note(results(dataclasses.replace(stored, **(plan or {})), known))


def test_one_subset_is_among_what_is_not_held() -> None:
    text = note()
    assert "vary: initialisation, the order of the data and augmentation." in text
    assert "do not hold the choice of training images, the choice of test images, the recipe or the data set" in text


def test_a_recipe_without_augmentation_claims_none() -> None:
    plain = study("scale").recipe.with_settings({"flip": False, "crop": 0})
    assert "initialisation and the order of the data." in note(recipe=plain)


def test_a_subset_for_each_seed_is_held_and_fewer_in_part() -> None:
    whole, part = note(data_seeds=7), note(data_seeds=2)
    for text in (whole, part):
        assert "augmentation and the choice of training images. They do not hold the choice of test images" in text
    assert "resemble each other" not in whole
    assert "2 training subsets resemble each other" in part
    assert "--data-seeds 7 gives each seed its own" in part


def test_the_number_of_test_images_has_its_binomial_error_at_the_level_of_the_scores() -> None:
    error = 100 * math.sqrt(0.8 * 0.2 / 400)
    assert f"With 400 test images a score of 80.0% has a standard error of {error:.2f} points" in note(
        plan={"test_images": 400}
    )
    assert "standard error" not in note(score=lambda name, seed: None)
    assert "is not known here" in note(plan={"task": "segment"})


def test_test_images_that_are_made_anew_are_held_too() -> None:
    text = note(data_seeds=7, plan={"test_splits": 7})
    assert "the choice of training images and the choice of test images. They do not hold the recipe or" in text
    assert "standard error" not in text
