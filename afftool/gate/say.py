"""A judgement for people: a table, a headline and reasons for the terminal, and Markdown. Nothing is printed."""

from __future__ import annotations

from afftool import units
from afftool.formats.markdown import escape, table_block
from afftool.gate.judge import Judgement, Outcome, Verdict
from afftool.gate.reading import METRICS
from afftool.stats import Interval
from afftool.tables import Column, Table

_ALL_ROWS = 40
"""Beyond this many rows, exact metrics that are fine are only counted."""

_WORDS: dict[Outcome, str] = {
    "regression": "regression",
    "broken": "broken",
    "new": "no baseline",
    "inconclusive": "inconclusive",
    "skipped": "skipped",
    "improved": "improved",
    "fine": "fine",
}


def table(judgement: Judgement) -> Table:
    """One row a verdict; `note` counts the rows that are left out."""
    shown = [verdict for verdict in judgement.verdicts if _is_shown(verdict, len(judgement.verdicts))]
    left_out = len(judgement.verdicts) - len(shown)
    columns: tuple[Column[Verdict], ...] = (
        Column("case", "case"),
        Column("metric", "metric"),
        Column("before", "before", numeric=True, get=lambda verdict: amount(verdict.metric, verdict.before)),
        Column("after", "after", numeric=True, get=lambda verdict: amount(verdict.metric, verdict.after)),
        Column("ratio", "ratio", numeric=True, get=lambda verdict: ratio(verdict.ratio)),
        Column("rule", "rule", get=lambda verdict: verdict.rule or None),
        Column("verdict", "verdict", get=word),
    )
    return Table.of(
        "Verdicts", shown, columns, note=f"{left_out} more exact metrics are unchanged." if left_out else ""
    )


def headline(judgement: Judgement) -> str:
    """The result in one line: `2 regressions, 1 inconclusive, 30 fine`."""
    counts = judgement.counts()
    parts = [
        f"{counts[outcome]} {word}{'s' if outcome == 'regression' and counts[outcome] != 1 else ''}"
        for outcome, word in _WORDS.items()
        if counts[outcome]
    ]
    advisory = sum(verdict.advisory for verdict in judgement.verdicts)
    return ", ".join([*parts, *([f"{advisory} advisory"] if advisory else [])]) or "nothing judged"


def reasons(judgement: Judgement) -> list[tuple[str, str]]:
    """(what, why) for everything that is not simply fine, the gravest first."""
    order = list(_WORDS)
    told = [verdict for verdict in judgement.verdicts if verdict.reason]
    told.sort(key=lambda verdict: (verdict.advisory, order.index(verdict.outcome)))
    return [(f"{word(verdict)}: {verdict.metric} of {verdict.case}", str(verdict.reason)) for verdict in told]


def word(verdict: Verdict) -> str:
    """A verdict's outcome as people read it."""
    return _WORDS[verdict.outcome] + (" (advisory)" if verdict.advisory else "")


def amount(metric: str, value: float | None) -> str | None:
    """A value of a metric as people read it; None where there is none."""
    if value is None:
        return None
    if metric == "latency_ms":
        return units.milliseconds(value)
    if metric == "nonfinite_share":
        return f"{units.significant(100 * value, 2)}%"
    return units.significant(value, 4) if metric == "throughput_per_s" else units.count(value)


def ratio(interval: Interval | None) -> str | None:
    """A ratio, with its interval where it has one that is not a point."""
    if interval is None:
        return None
    if interval.low == interval.high:
        return "1" if interval.estimate == 1 else f"{interval.estimate:.4g}"
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _is_shown(verdict: Verdict, rows: int) -> bool:
    exact = verdict.metric in METRICS and METRICS[verdict.metric].kind == "exact"
    return rows <= _ALL_ROWS or not (exact and verdict.outcome == "fine")


def markdown(judgement: Judgement, chosen: Judgement | None = None) -> str:
    """For the step summary and merge request notes: the result, why, the table, what was compared.

    Reasons and rows are those of `chosen`, where that is a part of the judgement.
    """
    part = judgement if chosen is None else chosen
    shown = table(part)
    blocks = [f"## afftool check: {escape(headline(judgement))}"]
    if told := reasons(part):
        blocks.append("\n".join(f"- **{escape(what)}**: {escape(why)}" for what, why in told))
    if shown.rows:
        blocks.append(table_block(shown))
    elif not judgement.verdicts:
        blocks.append("Nothing was judged.")
    blocks += [escape(shown.note)] if shown.note else []
    blocks.append(f"Compared: {escape(judgement.before)} with {escape(judgement.after)}.")
    blocks += [escape(note) for note in judgement.notes]
    return "\n\n".join(blocks) + "\n"


def markdown_of_refusal(message: str, hint: str | None) -> str:
    """A check that could not be carried out."""
    blocks = [
        "## afftool check: could not be carried out",
        escape(message),
        *([f"Hint: {escape(hint)}"] if hint else []),
    ]
    return "\n\n".join(blocks) + "\n"
