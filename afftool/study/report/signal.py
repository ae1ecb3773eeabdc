"""How the signal grows from fusion to fusion before training, in a study that is about it."""

from __future__ import annotations

from afftool import units
from afftool.report.model import Column, Table
from afftool.study.results import Results


def signal_table(results: Results) -> Table | None:
    """The mean of every variant at each fusion, in the order of the forward pass; None where no one asked."""
    if not results.study.signal:
        return None
    rows = []
    for variant in results.study.variants:
        mine = [cell.signal for cell in results.cells_of(variant.name) if cell.signal]
        if mine:
            means = [sum(values) / len(values) for values in zip(*mine, strict=True)]
            first, last = means[0], means[-1]
            path = " ".join(units.significant(mean) for mean in means)
            rows.append((variant.name, first, last, last / first if first and last else None, path))
    columns = (
        Column("variant", "variant"),
        Column("first", "first fusion", units.significant, numeric=True),
        Column("last", "last fusion", units.significant, numeric=True),
        Column("growth", "growth", units.ratio, numeric=True),
        Column("path", "all fusions, in order"),
    )
    note = "Root mean square of what each fusion puts out, before training, on training images; means over seeds."
    return Table(title="The signal at initialisation", columns=columns, rows=tuple(rows), note=note)
