"""JSON: one document with exact numbers, and null where there is none."""

from __future__ import annotations

import json

from afftool.tables import Report


def render(report: Report) -> str:
    """The report's document, indented by one so that it can be read and compared line by line."""
    return json.dumps(report.document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
