"""One question of the referee: a share of simulated runs, and what it has to be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Run = Callable[[np.random.Generator], bool | None]
"""One simulated run: whether what is asked came out, None where the run says nothing of it."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """In so many `runs` of `run`, how often does `what` happen in `world`? At least or at most the share wanted.

    Without `least` and `most` the share is told and nothing is wanted of it. `few` are the runs of the tests.
    """

    what: str
    world: str
    run: Run
    runs: int
    few: int
    least: float | None = None
    most: float | None = None

    def outcome(self, runs: int, seed: int) -> Outcome:
        """Run it so many times, from a seed."""
        found = [self.run(np.random.default_rng((seed, number))) for number in range(runs)]
        said = [one for one in found if one is not None]
        return Outcome(sum(said), len(said), runs)


@dataclass(frozen=True)
class Outcome:
    """In how many runs it happened, of those that said anything of it, of all."""

    happened: int
    said: int
    runs: int

    @property
    def share(self) -> float:
        """How often it happened; NaN where no run said anything."""
        return self.happened / self.said if self.said else math.nan

    @property
    def error(self) -> float:
        """The standard error of the share, never that of a share of 0 or 1."""
        share = (self.happened + 2) / (self.said + 4)
        return math.sqrt(share * (1 - share) / max(1, self.said))

    def meets(self, trial: Trial, slack: float = 0.0) -> bool:
        """Whether the share is what is wanted, give or take so many standard errors."""
        if not self.said:
            return trial.least is None
        reach = slack * self.error
        return (trial.least is None or self.share + reach >= trial.least) and (
            trial.most is None or self.share - reach <= trial.most
        )
