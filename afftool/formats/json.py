"""JSON: one document with exact numbers, and null where there is none.

What a terminal would obey, or nobody see, is escaped in it as JSON escapes.
"""

from __future__ import annotations

import json
import math
from typing import Any

from afftool.tables import Report
from afftool.visible import json_escaped


def render(report: Report) -> str:
    """The report's document, indented by one so that it can be read and compared line by line."""
    return json_text(report.document)


def json_text(document: Any) -> str:
    """Any document so."""
    return json_escaped(json.dumps(finite(document), indent=1, allow_nan=False, ensure_ascii=False)) + "\n"


def finite(value: Any) -> Any:
    """A value as JSON can hold it: infinities and not-a-numbers are None, however deep."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
