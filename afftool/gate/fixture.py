"""What the pytest fixture `fusion_gate` does: count a fusion exactly and fail the test where a limit is not held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pytest

from afftool.errors import SpecError, UnknownKey
from afftool.gate.exact import read_exact
from afftool.gate.reading import EXACT, METRICS, Reading
from afftool.registry import unknown
from afftool.spec import CaseSpec
from afftool.spec.sweep import CASE_WORDS, Sweep, Words, sweep

OPTIONS = (*(word for word in CASE_WORDS if word != "fusion"), "device")
"""What describes the case, besides the fusion; everything else that is given is a limit."""


class FusionGate(Protocol):
    """Counts a fusion and fails the test where a limit is not held; answers what was counted."""

    def __call__(self, fusion: str, /, **wanted: Any) -> Mapping[str, float]:
        """`fusion` as in `afftool bench`; `wanted` are options of the case and limits.

        Options: host, channels, size, batch, mode, dtype, memory_format, device. Limits: an exact metric by its name
        (equal), with `_max` (at most) or `_min` (at least). Raises `UnknownKey` for anything else, and the errors
        of `bench` for a case that cannot be.
        """


def check_cost(fusion: str, /, **wanted: Any) -> Mapping[str, float]:
    """As `FusionGate` says."""
    __tracebackhide__ = True
    limits = {key: value for key, value in wanted.items() if key not in OPTIONS}
    metrics = {key: _metric(key) for key in limits}
    for key, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{key}={value!r} is not a number")
    words = {key: _as_words(value) for key, value in wanted.items() if key in OPTIONS and key != "device"}
    planned = sweep(Words(fusion=[fusion], baseline=None, **words)).on_device(str(wanted.get("device", "cpu")))
    case = _only_case(planned, fusion)
    reading = read_exact(case, set(metrics.values()))
    broken = [text for key, value in limits.items() if (text := _broken(key, metrics[key], value, reading))]
    if broken:
        pytest.fail("\n".join([f"{case.fusion} is not what the test says:", *broken]), pytrace=False)
    return dict(reading.values)


def _only_case(planned: Sweep, fusion: str) -> CaseSpec:
    """The one case that was asked for. Raises `SpecError` where there are several, with why some cannot be."""
    if len(planned.cases) == 1 and not planned.skipped:
        return planned.cases[0]
    made = len(planned.cases) + len(planned.skipped)
    reasons = "; ".join(dict.fromkeys(str(record.reason) for record in planned.skipped))
    raise SpecError(
        f"fusion_gate checks one case, and {fusion!r} with these options makes {made}"
        + (f", of which {len(planned.skipped)} cannot be: {reasons}" if reasons else ""),
        hint="name one fusion and one value an option; call it once a case (pytest.mark.parametrize)",
    )


def _metric(key: str) -> str:
    """The metric that a limit is about. Raises `UnknownKey`."""
    name = key.removesuffix("_max").removesuffix("_min")
    if name in EXACT:
        return name
    if name in METRICS:
        raise UnknownKey(
            f"fusion_gate takes no {key!r}: {name} differs from run to run",
            hint="use `afftool check --against REF` for it",
        )
    error = unknown("limit", key, [*OPTIONS, *(n + end for n in EXACT for end in ("", "_max", "_min"))])
    raise UnknownKey(f"fusion_gate takes no key {key!r}", hint=error.hint)


def _as_words(value: Any) -> list[str]:
    """An option's value as the command line has it; a tuple is one size, as 56x28."""
    return ["x".join(map(str, value))] if isinstance(value, (tuple, list)) else [str(value)]


def _broken(key: str, metric: str, limit: float, reading: Reading) -> str | None:
    """The line about one limit that is not held."""
    if metric in reading.unread:
        return f"  {key}: not measured: {reading.unread[metric]}"
    if metric not in reading.values:
        return f"  {key}: {metric} cannot be measured: {reading.inapplicable.get(metric, 'this case has none')}"
    value = reading.values[metric]
    if key.endswith("_max"):
        word, held = "at most", value <= limit
    elif key.endswith("_min"):
        word, held = "at least", value >= limit
    else:
        word, held = "exactly", value == limit
    if held:
        return None
    detail = reading.details.get(metric, {})
    largest = sorted(detail.items(), key=lambda item: -item[1])[:4]
    parts = ", ".join(f"{name or 'forward itself'} {count:,}" for name, count in largest)
    made_of = f" ({parts})" if parts else ""
    return f"  {metric} is {value:,.10g}, {word} {limit:,.10g} was asked ({value - limit:+,.10g}){made_of}"
