"""How far two orders of the same variants agree, and how easily chance would agree as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FEWEST = 5
"""With four variants even the same order has p = 2 / 4! > 5%."""
COUNTED = 8
"""Up to so many variants all orders are gone through where there are ties."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b of two rankings, and its two-sided p-value."""

    tau: float
    p: float


def agreement(ours: Sequence[float], theirs: Sequence[float]) -> Agreement | None:
    """Kendall's rank correlation with an exact p; None below five variants, or where one side is all ties.

    With ties among more than eight variants, p is that of the normal approximation.
    """
    from scipy.stats import kendalltau

    if len(ours) < FEWEST or min(len(set(ours)), len(set(theirs))) < 2:
        return None
    tied = min(len(set(ours)), len(set(theirs))) < len(ours)
    found = kendalltau(ours, theirs, method="auto" if tied else "exact")
    p = _p_of_orders(ours, theirs) if tied and len(ours) <= COUNTED else found.pvalue
    return Agreement(float(found.statistic), float(p))


def _p_of_orders(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many orders of `ours` agree or disagree as much; scipy's exact p-value knows no ties."""
    import numpy as np
    from scipy.stats import permutation_test

    one, other = np.triu_indices(len(theirs), 1)
    signs = np.sign(np.subtract(*np.asarray(theirs)[np.array([one, other])]))

    def concordance(order: Any, axis: int = -1) -> Any:
        order = np.moveaxis(order, axis, -1)
        return np.abs(np.sign(order[..., one] - order[..., other]) @ signs)  # tau's numerator; the rest stays

    found = permutation_test(
        (ours,),
        concordance,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=math.factorial(COUNTED),
        alternative="greater",
    )
    return float(found.pvalue)
