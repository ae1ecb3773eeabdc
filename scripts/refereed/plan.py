"""How many of so many tries must come out, decided beforehand, and what their number says afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binom, binomtest

LUCK = 0.05
"""The most of the time that what is too poor may pass."""


@dataclass(frozen=True)
class Plan:
    """So many tries; what comes out in a share of `poor` alone is to fail, and in `good` to pass."""

    tries: int
    poor: float
    good: float = 0.95

    @property
    def mark(self) -> int:
        """The fewest tries that must come out: what is poor has that many in 5% at most. More than all, if too few."""
        return next(n for n in range(self.tries + 2) if self.passes(self.poor, n) <= LUCK)

    def passes(self, share: float, mark: int | None = None) -> float:
        """How often what comes out in that share of the tries passes."""
        return float(binom.sf((self.mark if mark is None else mark) - 1, self.tries, share))

    def words(self) -> str:
        """The plan, for a report."""
        if self.mark > self.tries:
            return f"Planned: {self.tries} tries, too few for any number of them to tell {self.poor:.0%} from all."
        return (
            f"Planned: {self.mark} of {self.tries} or more pass, which a true share of {self.poor:.0%} has in "
            f"{self.passes(self.poor):.1%}, one of {self.good:.0%} in {self.passes(self.good):.0%}."
        )

    def verdict(self, came: int) -> str:
        """What came out, whether that passes, and between what the true share lies (Clopper and Pearson 1934)."""
        ends = binomtest(came, self.tries).proportion_ci(0.95, method="exact")
        said = "passed" if came >= self.mark else "failed"
        return (
            f"{said}: {came} of {self.tries}, so the true share lies between {ends.low:.1%} and {ends.high:.1%} (95%)."
        )
