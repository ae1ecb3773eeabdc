"""The exact side of a report: records as a pandas frame, rows as they are for CSV, a run as a JSON document.

For notebooks: `frame(Store.open(path, create=False).run("latest").records)`. pandas is loaded by the first frame, so
that commands which draw a table and build none start without it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from afftool.record import SCHEMA, Record, Run

if TYPE_CHECKING:
    import pandas

FIELDS = tuple(f.name for f in dataclasses.fields(Record) if f.name != "samples_ms")
"""Every stored field of a row; the raw samples stay in the store."""


def frame(records: Sequence[Record]) -> pandas.DataFrame:
    """One row a record, one column a stored field; whole numbers stay whole where some are missing.

    A missing value is NA or None; a number that is not one, as an error can be, is there and stays NaN.
    """
    import numpy
    import pandas

    hints = get_type_hints(Record)

    def column(name: str) -> Any:
        values = [getattr(record, name) for record in records]
        kinds = {hints[name], *get_args(hints[name])}
        if int in kinds:
            return pandas.array(values, dtype="Int64")
        if float in kinds:  # pandas.array would take NaN for missing
            missing = numpy.array([value is None for value in values], dtype=bool)
            numbers = numpy.array([math.nan if value is None else value for value in values], dtype=float)
            return pandas.arrays.FloatingArray(numbers, missing)
        return objects(values)

    return pandas.DataFrame({name: column(name) for name in FIELDS})


def objects(values: Sequence[object]) -> pandas.Series:
    """A frame's column that holds values as they are, None too."""
    import pandas

    return pandas.Series(values, dtype=object)


def as_they_are(rows: Iterable[Mapping[str, object]], names: Sequence[str]) -> pandas.DataFrame:
    """Rows of any values as a frame, each value the very object; None where a row has none of that name."""
    import pandas

    given = list(rows)
    return pandas.DataFrame({name: objects([row.get(name) for row in given]) for name in names})


def document(run: Run) -> dict[str, Any]:
    """`{"schema", "environment", "records"}` with exact numbers."""
    return {
        "schema": SCHEMA,
        "environment": run.environment.to_dict(),
        "records": [{name: getattr(record, name) for name in FIELDS} for record in run.records],
    }
