"""What the gate can judge, one line a metric, and what one side says of one case. Pure data."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard

from afftool.plain import Plain
from afftool.registry import unknown
from afftool.stats import median

Detail = Mapping[str, int]
"""A breakdown of a metric, for example parameter name -> number of elements."""

MOST = 2**63 - 1
"""No count of a case is larger: more than a store can hold, and than any machine has bytes."""
TIMES_MS = (1e-9, 1e12)
"""What a step takes lies between: a billionth of a cycle, and thirty years."""


@dataclass(frozen=True, kw_only=True)
class Reading(Plain):
    """The numbers of one case on one side.

    `values` holds exact metrics and instruction counts; `details` breaks a metric down by name; `times_ms` are
    medians, one a fresh process, and `jobs_ms` medians of further jobs that timed the same code (a baseline's alone);
    `unread` says why a metric has no value, `inapplicable` why the case can have none whatever is done. `batch` inputs
    are worked on in one step. `source` is `file:line` of the fusion's class, relative to where the check was started.
    `global_state` names what the case's own files set for the whole process, as in a record. `nonfinite_share` of the
    values of a step's outputs and gradients are infinite or NaN; None where that is not known.

    Raises `ValueError`, in words that name the number, for one that no case can have: it came from a file or from
    another process, and a comparison with NaN is never a regression.
    """

    values: Mapping[str, int | float] = field(default_factory=dict)
    details: Mapping[str, Detail] = field(default_factory=dict)
    times_ms: tuple[float, ...] = ()
    jobs_ms: tuple[float, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    inapplicable: Mapping[str, str] = field(default_factory=dict)
    status: Literal["ok", "skipped", "failed"] = "ok"
    reason: str | None = None
    source: str | None = None
    batch: int = 1
    global_state: Mapping[str, str] = field(default_factory=dict)
    nonfinite_share: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.values.items():
            if name not in METRICS or METRICS[name].kind != "time":
                _check_count(name, value)
        for metric, detail in self.details.items():
            for name, value in detail.items():
                _check_count(f"{metric} of {name}", value)
        for name in ("times_ms", "jobs_ms"):
            for value in getattr(self, name):
                if not is_time(value):
                    raise ValueError(f"{name} holds {reprlib.repr(value)}, which is no time in ms")
        _check_count("batch", self.batch, least=1)
        share = self.nonfinite_share
        if share is not None and not (_is_number(share) and 0 <= share <= 1):
            raise ValueError(f"nonfinite_share is {reprlib.repr(share)}, no share from 0 to 1")

    @property
    def jobs(self) -> tuple[float, ...]:
        """What a step took in each job that timed this code, in ms, the baseline's own first; none without times."""
        return (median(self.times_ms), *self.jobs_ms) if self.times_ms else ()


def is_time(value: object) -> bool:
    """Whether that is what a step can take, in ms."""
    return _is_number(value) and TIMES_MS[0] <= value <= TIMES_MS[1]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_count(name: str, value: object, *, least: int = 0) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
        raise ValueError(f"{name} is {reprlib.repr(value)}, no whole number from {least} on")


def newcomers(before: Detail, after: Detail) -> dict[str, int]:
    """What grew and by how much, largest first; a breakdown that was summed by module is compared as one."""
    for coarse, fine in ((before, after), (after, before)):
        if coarse and fine and not any("." in name for name in coarse):
            shared = set(coarse) & set(_heads(fine))
            if len(shared) > len(set(coarse) & set(fine)):
                before, after = _heads(before), _heads(after)
                break
    grown = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
    return dict(sorted(grown.items(), key=lambda item: (-item[1], item[0])))


def small(detail: Detail, limit: int = 32) -> dict[str, int]:
    """A breakdown short enough to be stored: dotted names are summed under their first part if there are many."""
    if len(detail) <= limit:
        return dict(sorted(detail.items()))
    summed = _heads(detail)
    return summed if len(summed) <= limit else {}


def _heads(detail: Detail) -> dict[str, int]:
    summed: dict[str, int] = {}
    for name, count in detail.items():
        head = name.partition(".")[0]
        summed[head] = summed.get(head, 0) + count
    return dict(sorted(summed.items()))


Kind = Literal["exact", "time", "instructions"]


@dataclass(frozen=True)
class Metric:
    """A quantity with how it is judged.

    `exact` ones are the same on every machine. `time` ones come as an interval and only mean something beside
    another time of the same machine. `instructions` are counted under valgrind and move by less than 1%.
    `rule` is what holds where the user gives none; None: not judged unless a rule asks for it.
    """

    name: str
    kind: Kind
    noun: str
    """What there is too much of, as in "4,160 more parameters"; `{s}` where the plural has an s."""
    rule: str | None = "0"
    floor: float = 0.0
    """Changes up to this size, in the metric's own unit, are never called a regression."""
    higher_is_better: bool = False

    def counted(self, number: float, more: str = "") -> str:
        """`1 more graph break`, `2,048 FLOPs`."""
        noun = self.noun.replace("{s}", "" if number == 1 else "s")
        return f"{number:,.10g} {more}{noun}"


_ALL = (
    Metric("params", "exact", "parameter{s}"),
    Metric("live_params", "exact", "parameter{s} that a gradient reaches"),
    Metric("macs", "exact", "multiply-add{s}"),
    Metric("flops", "exact", "FLOP{s}"),
    Metric("moved_bytes", "exact", "byte{s} moved"),
    Metric("uncounted_ops", "exact", "operator call{s} that no formula counts"),
    Metric("saved_bytes", "exact", "byte{s} saved for the backward pass"),
    Metric("peak_bytes", "exact", "byte{s} at the peak"),
    Metric("operators", "exact", "operator call{s}"),
    Metric("graph_breaks", "exact", "graph break{s} under torch.compile"),
    Metric("recompiles", "exact", "recompilation{s} for unchanged inputs"),
    Metric("latency_ms", "time", "ms a step", rule="5%", floor=0.005),
    Metric("throughput_per_s", "time", "input{s} a second", rule=None, higher_is_better=True),
    Metric("instructions", "instructions", "instruction{s} a step", rule="2%"),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
EXACT: tuple[str, ...] = tuple(m.name for m in _ALL if m.kind == "exact")
GROUPS: dict[str, tuple[str, ...]] = {"exact": EXACT, "time": ("latency_ms", "throughput_per_s")}
DEFAULT: tuple[str, ...] = (*EXACT, "latency_ms")


def of_kind(kind: Kind, metrics: Iterable[str] = METRICS) -> list[str]:
    """Those of the metrics that are of this kind."""
    return [name for name in metrics if METRICS[name].kind == kind]


def choose(words: Iterable[str]) -> tuple[str, ...]:
    """The metrics that `words` (names, `exact` or `time`) stand for, each once. Raises `UnknownName`."""
    chosen: dict[str, None] = {}
    for word in words:
        if word not in METRICS and word not in GROUPS:
            raise unknown("metric", word, [*GROUPS, *METRICS])
        chosen |= dict.fromkeys(GROUPS.get(word, (word,)))
    return tuple(chosen)
