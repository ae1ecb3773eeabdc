"""Records as a pandas table, for notebooks: `frame(Store.open(path, create=False).run("latest").records)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from afftool.record import Record
from afftool.report.document import FIELDS

if TYPE_CHECKING:
    import pandas


def frame(records: Sequence[Record]) -> pandas.DataFrame:
    """One row a record, one column a stored field; whole numbers stay whole where some are missing."""
    import pandas

    rows = [{name: getattr(record, name) for name in FIELDS} for record in records]
    return pandas.DataFrame(rows, columns=list(FIELDS)).convert_dtypes(convert_floating=False)
