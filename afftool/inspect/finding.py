"""What a check has to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["fault", "warning", "note", "ok", "unknown"]

SEVERITIES: dict[Severity, str] = {
    "fault": "it does not do what it should",
    "warning": "it is likely to hurt",
    "note": "worth knowing",
    "unknown": "could not be checked",
    "ok": "looked at, nothing to say against it",
}
"""From the worst to the best."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One finding: what was seen, why it matters, what to do, and the numbers behind it."""

    check: str = ""
    """The name of the check; `checks.review` puts it in, so that no check has to say its own."""
    severity: Severity
    what: str
    why: str = ""
    do: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
