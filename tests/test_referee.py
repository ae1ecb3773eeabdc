"""The claims hold on made-up measurements: a fast part of `scripts/referee.py`, with fewer runs and wide limits."""

from __future__ import annotations

import pytest
from refereed import front, gate, studies, times
from refereed.trial import Trial

TRIALS = [
    (trial, number)
    for section in (times, gate, studies, front)
    for number, trial in enumerate(section.TRIALS)
    if trial.few and (trial.least is not None or trial.most is not None)
]
SLACK = 3.5
"""So many standard errors a share may miss what is wanted of it: of many trials hardly one misses by chance."""


@pytest.mark.parametrize(("trial", "number"), TRIALS, ids=[f"{trial.what} [{trial.world}]" for trial, _ in TRIALS])
def test_a_claim_holds_as_often_as_it_says(trial: Trial, number: int) -> None:
    came = trial.outcome(trial.few, number)
    assert came.meets(trial, SLACK), f"{came.happened} of {came.said}"
