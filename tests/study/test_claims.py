"""Does a study cry wolf, and does it see one? The same fusion under two names, and at a tenth of the learning rate.

On cells that are really trained, in small (`scripts/aa_study.py` at length); what simulated scores say of equals is the
referee's to ask (`scripts/refereed/studies.py`).
"""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from small_cells import planned, small, train

from afftool.study.engines.local import run_here
from afftool.study.significance import Comparison, compare
from afftool.study.spec import Variant

SEEDS = 10
LR = 0.05
Noise = Callable[[random.Random], float]


def steady(rng: random.Random) -> float:
    return rng.gauss(0, 0.02)


def now_and_then_a_bad_run(rng: random.Random) -> float:
    return rng.gauss(0, 0.01) - rng.expovariate(50)


def simulated(rng: random.Random, noise: Noise, handicap: float) -> Comparison:
    """One study of two variants: a seed's luck is shared, as its data and its host's weights are; the noise is not."""
    luck = [rng.gauss(0.6, 0.05) for _ in range(SEEDS)]
    scores = {
        "one": {seed: common + noise(rng) for seed, common in enumerate(luck)},
        "other": {seed: common + noise(rng) - handicap for seed, common in enumerate(luck)},
    }
    return compare(scores, [("other", "one")])[0]


@pytest.mark.parametrize("noise", [steady, now_and_then_a_bad_run])
def test_a_clear_handicap_is_found_in_nearly_every_study(noise: Noise) -> None:
    """But where a run of the better one lies so low by chance that it counts as collapsed."""
    rng = random.Random(19)
    found = [simulated(rng, noise, 0.1) for _ in range(200)]
    assert {c.claim for c in found if c.withheld is None} == {"worse"}
    assert sum(c.withheld is not None for c in found) <= 4


@pytest.mark.long
def test_trained_equals_differ_and_are_not_told_apart_and_a_tenth_of_the_learning_rate_is_worse(tmp_path: Path) -> None:
    """Six seeds, the fewest that can claim anything, of four epochs on 160 digits."""
    recipe = {"lr": LR, "warmup": 0.5, "flip": False, "crop": 0.0}
    spec = dataclasses.replace(
        small(seeds=6, epochs=4, train_images=160, budget=None, recipe=recipe),
        variants=(
            Variant(name="one", fusion="aff", draw="a"),
            Variant(name="other", fusion="aff", draw="b"),
            Variant(name="handicapped", fusion="aff", draw="b", recipe=(("lr", LR / 10),)),
        ),
        baseline="one",
    )
    made = planned(spec)
    records = train(made, run_here, tmp_path)
    runs = {(name, seed): records[cell.identity] for name, seed, cell in made.cells}
    assert all(runs["one", seed].losses != runs["other", seed].losses for seed in spec.seeds)
    scores = {v.name: {seed: runs[v.name, seed].score or 0.0 for seed in spec.seeds} for v in spec.variants}
    same, handicap = (compare(scores, [(name, "one")])[0] for name in ("other", "handicapped"))
    assert (same.claim, handicap.claim) == ("cannot tell", "worse")
