"""What a change may cost: one rule a metric, and the book of them for all cases."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from afftool.errors import SpecError
from afftool.gate.reading import METRICS, MOST, Metric
from afftool.registry import unknown
from afftool.stats import Interval

TimeChange = Literal["slower", "faster", "same", "open"]

_LIMITS = ("floor", "max", "min")
_KEYS = ("change", *_LIMITS)
_FORMS = '"5%" (of the value before), "1024" (in the metric\'s own unit), { max = 5000 }, or "off"'
_NUMBER = re.compile(r"[0-9][0-9_,]*(\.[0-9]+)?([eE][+-]?[0-9]+)?|\.[0-9]+")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How far a metric may move the wrong way, relative (`share`) or absolute (`amount`), and where it must stay.

    Without `share` and `amount` only `max` and `min` are looked at. A change no larger than `floor` passes.
    """

    share: float | None = None
    amount: float | None = None
    floor: float = 0.0
    max: float | None = None
    min: float | None = None
    off: bool = False

    @property
    def compares(self) -> bool:
        """Whether it needs a value to compare with."""
        return not self.off and (self.share is not None or self.amount is not None)

    def allowed(self, before: float) -> float:
        """The largest wrong-way change, in the metric's unit, that `before` may see."""
        if self.share is not None:
            return self.share * abs(before)
        return self.amount if self.amount is not None else math.inf

    @property
    def text(self) -> str:
        """The rule as the tables print it."""
        if self.off:
            return "off"
        parts = []
        if self.share is not None:
            parts.append(f"{100 * self.share:g}%")
        if self.amount is not None:
            parts.append(_amount_text(self.amount))
        parts += [f"max {self.max:,.10g}"] if self.max is not None else []
        parts += [f"min {self.min:,.10g}"] if self.min is not None else []
        return ", ".join(parts)


def _amount_text(amount: float) -> str:
    if amount == math.inf:
        return "any, but none dead"  # only the live parameters have such a rule
    return "no change" if amount == 0 else f"by {amount:,.10g}"


def parse_rule(metric: Metric, value: Any, where: str) -> Rule:
    """Read a rule as TOML gives it. `where` names its place for the error. Raises `SpecError`."""
    if value is False or value == "off":
        return Rule(off=True)
    if isinstance(value, Mapping):
        return _parse_table(metric, value, where)
    share, amount = _change(metric, value, where)
    return Rule(share=share, amount=amount, floor=metric.floor)


def _parse_table(metric: Metric, table: Mapping[str, Any], where: str) -> Rule:
    for key in table:
        if key not in _KEYS:
            raise SpecError(f"{where} takes no key {key!r}", hint=unknown("key", key, _KEYS).hint)
    if not set(table) - {"floor"}:
        raise SpecError(f"{where} says neither change, max nor min", hint=f"a rule is {_FORMS}")
    share, amount = _change(metric, table["change"], where) if "change" in table else (None, None)
    floor, high, low = (_number(table[key], f"{where}.{key}") if key in table else None for key in _LIMITS)
    rule = Rule(share=share, amount=amount, floor=metric.floor if floor is None else floor, max=high, min=low)
    if rule.max is not None and rule.min is not None and rule.min > rule.max:
        raise SpecError(f"{where}: min {rule.min:g} is above max {rule.max:g}", hint="swap them")
    return rule


def _change(metric: Metric, value: Any, where: str) -> tuple[float | None, float | None]:
    """The relative or the absolute change that `value` allows."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return _number(value.strip()[:-1].strip(), where) / 100, None
    if isinstance(value, float) and 0 < value < 1:
        raise SpecError(
            f"{where} = {value} could mean a share or an amount",
            hint=f'write "{100 * value:g}%" for a share, or "{value:g}" in quotes for {metric.counted(value)}',
        )
    return None, _number(value, where)


def _number(value: Any, where: str) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value.replace("_", "").replace(",", ""))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
        raise SpecError(f"{where} = {reprlib.repr(value)} is no rule", hint=f"a rule is {_FORMS}; none may be negative")
    return value


def slowdown_limit(metric: Metric, rule: Rule, before: float) -> float:
    """The time ratio that a rule tolerates: 1.05 for `latency_ms = "5%"`, 1 / 0.95 for a throughput 5% lower."""
    share = rule.allowed(before) / before if before else 0.0
    if metric.higher_is_better:
        return 1 / (1 - share) if share < 1 else float("inf")
    return 1 + share


def change_of(ratio: Interval | None, limit: float) -> TimeChange:
    """What an interval of time ratios (after over before) says where a rule tolerates `limit`.

    `slower` and `faster` need the whole interval beyond the limit and below its mirror image; `open` are no interval,
    and one that holds the limit.
    """
    if ratio is None or not (ratio.low > limit or ratio.high <= limit):
        return "open"
    if ratio.low > limit:
        return "slower"
    return "faster" if ratio.high < 2 - limit else "same"


@dataclass(frozen=True, kw_only=True)
class RuleBook:
    """The rules of a check: those of one case first, then those for all, then the metric's own default."""

    common: Mapping[str, Rule] = field(default_factory=dict)
    cases: Mapping[str, Mapping[str, Rule]] = field(default_factory=dict)

    def find(self, case: str, metric: str) -> Rule:
        """The rule that holds for a metric of a case."""
        for rules in (self.cases.get(case, {}), self.common):
            if metric in rules:
                return rules[metric]
        if metric == "live_params" and (found := self.find(case, "params")) != _default("params"):
            # Whoever allows a module to grow allows it to grow alive; a limit alone still asks that nothing dies.
            amount = found.amount if found.compares or found.off else math.inf
            return Rule(share=found.share, amount=amount, floor=found.floor, off=found.off)
        return _default(metric)

    @property
    def named(self) -> tuple[str, ...]:
        """Every metric that some rule asks for."""
        books = (self.common, *self.cases.values())
        return tuple(dict.fromkeys(name for rules in books for name, rule in rules.items() if not rule.off))


def _default(name: str) -> Rule:
    metric = METRICS[name]
    return Rule(off=True) if metric.rule is None else parse_rule(metric, metric.rule, name)


def parse_rules(table: Any, where: str) -> dict[str, Rule]:
    """Read a `[rules]` table. Raises `SpecError` or `UnknownName`."""
    if not isinstance(table, Mapping):
        raise SpecError(f"{where} is not a table", hint='for example [rules] with latency_ms = "5%" below it')
    rules = {}
    for name, value in table.items():
        if name not in METRICS:
            raise unknown(f"metric in {where}", name, METRICS)
        rules[name] = parse_rule(METRICS[name], value, f"{where}.{name}")
    return rules
