"""What the gate can judge: one line a metric. Pure data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from afftool.registry import unknown

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


def choose(words: Iterable[str]) -> tuple[str, ...]:
    """The metrics that `words` (names, `exact` or `time`) stand for, each once. Raises `UnknownName`."""
    chosen: dict[str, None] = {}
    for word in words:
        if word not in METRICS and word not in GROUPS:
            raise unknown("metric", word, [*GROUPS, *METRICS])
        chosen |= dict.fromkeys(GROUPS.get(word, (word,)))
    return tuple(chosen)
