"""CSV: what the report says in lines that begin with #, then every stored field of every row, exactly.

`pandas.read_csv(path, comment="#")` reads it. Text that a spreadsheet would calculate, since it begins as a formula
does, has an apostrophe before it, and what nobody would see in it is shown; numbers are as they are.
"""

from __future__ import annotations

import re
from typing import Any

from pandas import NA

from afftool.tables import Report
from afftool.visible import line, lines

_FORMULA = re.compile(r"(?![+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?$)[=+\-@\n\t]", re.IGNORECASE)
"""How text begins that is calculated, and is no number."""


def render(report: Report) -> str:
    """The report's facts as comments, then its data: one header, one line a record, nothing for None."""
    facts = [("Title", report.title), *report.facts]
    said = [f"# {line(label)}: {' '.join(lines(text).split())}" for label, text in facts]
    columns = [[_cell(name), *map(_cell, column.tolist())] for name, column in report.data.items()]
    said += [",".join(row) for row in zip(*columns, strict=True)]
    return "\n".join(said) + "\n"


def _cell(value: Any) -> str:
    """One value, quoted where it must be; `#` too, so that it never starts a comment."""
    if value is None or value is NA:
        return ""
    text = repr(value) if isinstance(value, float) else lines(str(value))
    if isinstance(value, str) and _FORMULA.match(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"#\r\n') else text
