"""JSON: one document with exact numbers, and null where there is none.

What a terminal would obey, or nobody see, is escaped in it as JSON escapes.
"""

from __future__ import annotations

import json
from typing import Any

from afftool.tables import Report
from afftool.visible import json_escaped


def render(report: Report) -> str:
    """The report's document, indented by one so that it can be read and compared line by line."""
    return text_of(report.document)


def text_of(document: Any) -> str:
    """Any document so. Raises `ValueError` for a number that JSON has no words for."""
    return json_escaped(json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False)) + "\n"
