"""Where the cost and the memory of a case come from, operator by operator and module by module."""

from __future__ import annotations

from collections.abc import Mapping

from afftool.errors import AfftoolError
from afftool.report.breakdown import Breakdown
from afftool.spec import CaseSpec


def break_down(case: CaseSpec, *, explain: bool, per_module: bool, memory: bool) -> Breakdown:
    """Count `case` once more and keep what its record sums up; with `memory`, a training step is made for it too."""
    from afftool.measure.cost import count
    from afftool.measure.explain import explain as explained

    explanation = reading = None
    try:
        explanation = explained(case) if explain else None
        reading = (explanation.reading if explanation else count(case)) if per_module else None
    except AfftoolError:
        pass
    saved = _saved_by_module(case) if per_module and memory and case.mode == "train" else None
    return Breakdown(case=case, explanation=explanation, reading=reading, saved_by_module=saved)


def _saved_by_module(case: CaseSpec) -> Mapping[str, int] | None:
    from afftool.build import build_case
    from afftool.measure.memory import measure

    try:
        return measure(build_case(case)).saved_by_module_bytes
    except (Exception, SystemExit):
        return None
