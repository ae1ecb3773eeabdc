"""Records as a pandas table, for notebooks: `frame(Store.open(path, create=False).run("latest").records)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, get_args, get_type_hints

from afftool.record import Record
from afftool.report.document import FIELDS

if TYPE_CHECKING:
    import pandas


def frame(records: Sequence[Record]) -> pandas.DataFrame:
    """One row a record, one column a stored field; whole numbers stay whole where some are missing."""
    import pandas

    hints = get_type_hints(Record)
    kinds = {name: {int, float} & {hints[name], *get_args(hints[name])} for name in FIELDS}
    dtypes = {
        name: "Int64" if int in kind else "Float64" if float in kind else "object" for name, kind in kinds.items()
    }
    columns = {
        name: pandas.array([getattr(record, name) for record in records], dtype=cast(Any, dtypes[name]))
        for name in FIELDS
    }
    return pandas.DataFrame(columns)
