"""The score by the size of the objects, where the data tells it."""

from __future__ import annotations

from collections.abc import Sequence

from afftool.report.model import Column, Table
from afftool.study.report.show import percent
from afftool.study.results import Results


def bands_table(results: Results) -> Table | None:
    """The mean of every variant in each band; None where no cell has bands."""
    bands = list(dict.fromkeys(band for cell in results.cells.values() for band in cell.bands))
    if not bands:
        return None
    rows = []
    for variant in results.study.variants:
        mine = [cell.bands for cell in results.cells_of(variant.name) if cell.bands]
        means = (_mean([scores[band] for scores in mine if band in scores]) for band in bands)
        rows.append((variant.name, *means))
    columns = (Column("variant", "variant"), *(Column(band, band, percent, numeric=True) for band in bands))
    return Table(
        title=f"{results.measure.capitalize() if results.measure == 'accuracy' else results.measure} by object size",
        columns=columns,
        rows=tuple(rows),
        note="Means over seeds; for reading, not for claims: these differences are not tested.",
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
