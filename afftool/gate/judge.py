"""Baseline + candidate + rules -> verdicts. Pure: no torch, no files, no clock.

An exact metric is compared as it is. A time regresses only if the whole interval of after over before lies beyond
what its rule allows and the change is above the rule's floor; while the interval straddles that limit the answer is
`inconclusive`, which is said and never passed off as fine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from afftool.gate import explain
from afftool.gate.reading import METRICS, Metric, Reading
from afftool.gate.rules import Rule, RuleBook, change_of, slowdown_limit
from afftool.stats import Interval, median

Outcome = Literal["fine", "improved", "regression", "broken", "new", "inconclusive", "skipped"]
Missing = Literal["create", "skip", "fail"]
"""What to do where there is nothing to compare with."""

FINE, REGRESSION, INCONCLUSIVE, NO_BASELINE = 0, 3, 4, 5

_SLACK = 1e-9
"""Relative room for the rounding of `5%` of a number."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer for one metric of one case. `advisory` ones are shown and never decide."""

    case: str
    metric: str
    outcome: Outcome
    before: float | None = None
    after: float | None = None
    ratio: Interval | None = None
    rule: str = ""
    reason: str | None = None
    advisory: bool = False
    source: str | None = None
    pairs: int | None = None
    """Of processes, that its time comes from."""
    pairs_needed: int | None = None
    """About how many would give an answer, where these do not and any number does."""

    @property
    def fails(self) -> bool:
        """Whether it makes the check fail whatever its options are."""
        return not self.advisory and self.outcome in ("regression", "broken")


@dataclass(frozen=True)
class Judgement:
    """All verdicts of a check, in the order of its cases, and what was compared with what."""

    verdicts: tuple[Verdict, ...]
    before: str = ""
    after: str = ""
    notes: tuple[str, ...] = ()

    def counts(self) -> Counter[Outcome]:
        """How many verdicts of each outcome there are, the advisory ones left out."""
        return Counter(verdict.outcome for verdict in self.verdicts if not verdict.advisory)

    def exit_code(self, *, strict: bool = False, on_missing: Missing = "fail") -> int:
        """0 fine, 3 a regression, 5 something has no baseline, 4 inconclusive with `strict`; the gravest wins."""
        found = self.counts()
        if any(verdict.fails for verdict in self.verdicts):
            return REGRESSION
        if found["new"] and on_missing == "fail":
            return NO_BASELINE
        return INCONCLUSIVE if strict and found["inconclusive"] else FINE

    def deciding(self, *, strict: bool = False, on_missing: Missing = "fail") -> Judgement:
        """With only those verdicts that make the exit code another than 0."""
        decides = {"new": on_missing == "fail", "inconclusive": strict}
        kept = (v for v in self.verdicts if v.fails or (decides.get(v.outcome, False) and not v.advisory))
        return replace(self, verdicts=tuple(kept))


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One case on both sides. `before` is None where the baseline does not know it (`absent` says why)."""

    case: str
    before: Reading | None
    after: Reading
    ratio: Interval | None = None
    after_ms: tuple[float, float] | None = None
    """Interval of the candidate's own time, for rules with `max` or `min`."""
    pairs: int | None = None
    """Of processes that were timed in turns; None where the sides were not."""
    pairs_needed: int | None = None
    budget_s: float | None = None
    """Seconds of timing that give the pairs that are needed."""
    absent: str = "the baseline does not have this case"
    advisory: Mapping[str, str] = field(default_factory=dict)
    """Metrics that may not decide here, with the reason."""
    ratio_advises: str | None = None
    """Why the ratio of times may not decide here, though limits of the candidate's own time may; None where it may."""


def judge(pairs: Iterable[Pair], rules: RuleBook, metrics: Sequence[str]) -> tuple[Verdict, ...]:
    """The verdict on each metric of each pair."""
    return tuple(verdict for pair in pairs for verdict in _judge_pair(pair, rules, metrics))


def _judge_pair(pair: Pair, rules: RuleBook, metrics: Sequence[str]) -> Iterable[Verdict]:
    blank = Verdict(case=pair.case, metric="", outcome="fine", source=pair.after.source)
    if pair.after.status == "skipped":
        yield replace(blank, metric="case", outcome="skipped", reason=pair.after.reason)
        return
    if pair.after.status == "failed":
        yield replace(blank, metric="case", outcome="broken", reason=explain.broken(pair.before, pair.after))
        return
    if pair.after.nonfinite_share:
        yield _judge_values(replace(blank, metric="nonfinite_share"), pair)
    if pair.before is None and not any(_has_limit(rules.find(pair.case, name)) for name in metrics):
        yield replace(blank, metric="case", outcome="new", reason=pair.absent)
        return
    for name in metrics:
        rule = rules.find(pair.case, name)
        if rule.off:
            continue
        verdict = _judge_metric(replace(blank, metric=name, rule=rule.text), METRICS[name], pair, rule)
        if name in pair.advisory:
            verdict = _advising(verdict, pair.advisory[name])
        yield verdict


def _advising(verdict: Verdict, why: str | None) -> Verdict:
    """The verdict, which may not decide where there is a reason for that."""
    if why is None:
        return verdict
    return replace(verdict, advisory=True, reason="; ".join(filter(None, [why, verdict.reason])))


def _judge_values(blank: Verdict, pair: Pair) -> Verdict:
    """Of a case with values that are infinite or NaN: a regression where there were fewer of them before.

    No rule is asked: what takes a time or memory to give no numbers gives no result.
    """
    now = pair.after.nonfinite_share or 0.0
    was = pair.before.nonfinite_share if pair.before else None
    absent = "the baseline does not say" if pair.before else pair.absent
    outcome: Outcome = "inconclusive" if was is None else "regression" if now > was * (1 + _SLACK) else "fine"
    ratio = _exact_ratio(was, now)
    return replace(
        blank, outcome=outcome, before=was, after=now, ratio=ratio, reason=explain.not_finite(was, now, absent)
    )


def _has_limit(rule: Rule) -> bool:
    return not rule.off and (rule.max is not None or rule.min is not None)


def _judge_metric(blank: Verdict, metric: Metric, pair: Pair, rule: Rule) -> Verdict:
    if metric.name in pair.after.unread:
        return replace(blank, outcome="inconclusive", reason=pair.after.unread[metric.name])
    if metric.name in pair.after.inapplicable:
        had = pair.before is not None and metric.name in pair.before.values
        return replace(blank, outcome="inconclusive" if had else "skipped", reason=pair.after.inapplicable[metric.name])
    if metric.kind == "time":
        return _judge_time(blank, metric, pair, rule)
    after = pair.after.values.get(metric.name)
    if after is None:
        return replace(blank, outcome="inconclusive", reason=f"{metric.name} was not measured")
    before = None if pair.before is None else pair.before.values.get(metric.name)
    blank = replace(blank, before=before, after=after, ratio=_exact_ratio(before, after))
    if limit := explain.beyond(metric, after, after, rule):
        return replace(blank, outcome="regression", reason=limit)
    if not rule.compares:
        return blank
    if before is None or pair.before is None:
        return _without_before(blank, pair, rule)
    return _judge_exact(blank, metric, pair.before, pair.after, rule)


def _without_before(blank: Verdict, pair: Pair, rule: Rule) -> Verdict:
    reason = pair.absent if pair.before is None else f"the baseline holds no {blank.metric} for this case"
    return blank if _has_limit(rule) else replace(blank, outcome="new", reason=reason)


def _exact_ratio(before: float | None, after: float) -> Interval | None:
    return Interval(estimate=after / before, low=after / before, high=after / before) if before else None


def _judge_exact(blank: Verdict, metric: Metric, before: Reading, after: Reading, rule: Rule) -> Verdict:
    if metric.name == "live_params" and (dead := explain.newly_dead(before, after)):
        return replace(blank, outcome="regression", reason=dead)
    was, now = before.values[metric.name], after.values[metric.name]
    worse = was - now if metric.higher_is_better else now - was
    if worse > max(rule.allowed(was) * (1 + _SLACK), rule.floor):
        return replace(blank, outcome="regression", reason=explain.growth(metric, before, after))
    return replace(blank, outcome="improved" if worse < -max(rule.floor, _noise(metric, rule, was)) else "fine")


def _noise(metric: Metric, rule: Rule, before: float) -> float:
    """Instruction counts move a little by themselves, so only a fall as large as the rule is an improvement."""
    return rule.allowed(before) if metric.kind == "instructions" and rule.compares else 0.0


def _judge_time(blank: Verdict, metric: Metric, pair: Pair, rule: Rule) -> Verdict:
    after = _in_metric(metric, pair.after.times_ms, pair.after.batch)
    before = None if pair.before is None else _in_metric(metric, pair.before.times_ms, pair.before.batch)
    if after is None:
        return replace(blank, outcome="inconclusive", before=before, reason=f"{metric.name} was not measured")
    ratio = pair.ratio
    shown = _inverse(ratio) if ratio and metric.higher_is_better else ratio
    blank = replace(blank, before=before, after=after, ratio=shown, pairs=pair.pairs)
    if limited := _judge_limits(blank, metric, pair, rule):
        return limited
    if not rule.compares:
        return blank
    if before is None or ratio is None:
        return _without_before(blank, pair, rule)
    return _advising(_judge_ratio(blank, metric, pair, ratio, rule), pair.ratio_advises)


def _judge_ratio(blank: Verdict, metric: Metric, pair: Pair, ratio: Interval, rule: Rule) -> Verdict:
    """`ratio` is of times, so above 1 is worse whatever the metric."""
    assert blank.before is not None
    assert blank.after is not None
    limit = slowdown_limit(metric, rule, blank.before)
    found = change_of(ratio, limit)
    if found in ("faster", "same"):
        return replace(blank, outcome="improved" if found == "faster" else "fine")
    sure = found == "slower"
    change = abs(blank.after - blank.before) if sure else (ratio.high - 1) * blank.before
    if change <= rule.floor:
        return replace(blank, reason=explain.below_floor(metric, change, rule))
    if sure:
        return replace(blank, outcome="regression", reason=explain.slower(metric, ratio, blank.before, blank.after))
    more = (
        explain.more_jobs() if pair.pairs is None else explain.more_pairs(pair.pairs, pair.pairs_needed, pair.budget_s)
    )
    reason = f"{explain.open_answer(ratio, limit)}: {more}"
    return replace(blank, outcome="inconclusive", reason=reason, pairs_needed=pair.pairs_needed)


def _judge_limits(blank: Verdict, metric: Metric, pair: Pair, rule: Rule) -> Verdict | None:
    if not _has_limit(rule) or blank.after is None:
        return None
    low, high = pair.after_ms or (blank.after, blank.after)
    if pair.after_ms and metric.higher_is_better:
        low, high = 1000 * pair.after.batch / high, 1000 * pair.after.batch / low
    if reason := explain.beyond(metric, low, high, rule):
        return replace(blank, outcome="regression", reason=reason)
    if (rule.max is not None and high > rule.max) or (rule.min is not None and low < rule.min):
        reason = f"the interval {low:.4g} to {high:.4g} holds the limit ({rule.text}): measure longer"
        return replace(blank, outcome="inconclusive", reason=reason)
    return None


def _inverse(ratio: Interval) -> Interval:
    return Interval(estimate=1 / ratio.estimate, low=1 / ratio.high, high=1 / ratio.low)


def _in_metric(metric: Metric, times_ms: Sequence[float], batch: int) -> float | None:
    """The median of times in the metric's unit; None where there are none."""
    if not times_ms:
        return None
    return 1000 * batch / median(times_ms) if metric.higher_is_better else median(times_ms)
