"""Every comparison: the paired difference, its interval, its test, and what may be claimed."""

from __future__ import annotations

from collections.abc import Sequence

from afftool.report.model import Column, Table
from afftool.study.report.show import counted, p_value, points, points_plain
from afftool.study.significance import Comparison


def differences_table(comparisons: Sequence[Comparison]) -> Table:
    """One row a comparison."""
    columns = (
        Column("variant", "variant"),
        Column("against", "against"),
        Column("difference", "difference (points)", points, numeric=True),
        Column("low", "95% low", points, numeric=True),
        Column("high", "95% high", points, numeric=True),
        Column("effect", "effect size", lambda v: f"{v:+.2f}", numeric=True),
        Column("p", "p", p_value, numeric=True),
        Column("p_corrected", "p, corrected", p_value, numeric=True),
        Column("detectable", "smallest detectable", points_plain, numeric=True),
        Column("claim", "claim"),
    )
    rows = tuple(tuple(getattr(c, column.name) for column in columns) for c in comparisons)
    note = (
        "Paired by seed. p: exact sign-flip permutation test; corrected by Holm for "
        f"{counted(len(comparisons), 'comparison')}. Intervals are of one comparison each. Effect size: mean over "
        "deviation of the paired differences. Smallest detectable: the true difference that so many seeds show with "
        "80% probability."
    )
    return Table(title="Differences", columns=columns, rows=rows, note=note)
