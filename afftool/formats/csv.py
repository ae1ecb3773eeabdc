"""CSV: what the report says in lines that begin with #, then every stored field of every row, exactly.

`pandas.read_csv(path, comment="#")` reads it.
"""

from __future__ import annotations

from typing import Any

from pandas import NA

from afftool.tables import Report


def render(report: Report) -> str:
    """The report's facts as comments, then its data: one header, one line a record, nothing for None."""
    facts = [("Title", report.title), *report.facts]
    lines = [f"# {label}: {' '.join(text.split())}" for label, text in facts]
    columns = [[_cell(name), *map(_cell, column.tolist())] for name, column in report.data.items()]
    lines += [",".join(row) for row in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    """One value, quoted where it must be; `#` too, so that it never starts a comment."""
    text = "" if value is None or value is NA else repr(value) if isinstance(value, float) else str(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"#\r\n') else text
