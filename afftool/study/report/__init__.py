"""A study's cells -> tables in words that claim no more than the seeds allow. Pure; nothing here imports torch.

`words` above and below the tables, `tables` in the order of the report, `exact` for CSV and JSON.
"""

from __future__ import annotations

from afftool.record import Environment
from afftool.study.front import placed
from afftool.study.report.claims import claims
from afftool.study.report.exact import exact_rows, study_document
from afftool.study.report.tables import (
    bands_table,
    cost_table,
    differences_table,
    paper_table,
    scores_table,
    seeds_table,
    signal_table,
)
from afftool.study.report.words import interval_name, percent, study_facts, study_notes
from afftool.study.results import Results
from afftool.study.significance import summarize
from afftool.tables import Bar, Chart, Report

__all__ = ["study_report"]


def study_report(results: Results, environment: Environment) -> Report:
    """The whole report: who was trained how, scores, differences, cost, the paper's numbers, every seed."""
    scores = results.scores()
    failed = results.failed()
    summaries = {name: summarize(values, len(failed[name])) for name, values in scores.items() if values}
    comparisons, rule = claims(results)
    places = placed(results, claims(results, results.study.comparisons(pairs=True))[0])
    tables = (
        scores_table(results, summaries),
        differences_table(comparisons),
        cost_table(results, summaries, places),
        bands_table(results),
        signal_table(results),
        paper_table(results, summaries),
        seeds_table(results, scores),
    )
    bars = tuple(Bar(name, s.median, s.low, s.high) for name, s in summaries.items())
    return Report(
        title=f"Ablation: {results.study.name}",
        facts=study_facts(results, environment, rule),
        tables=tuple(table for table in tables if table is not None),
        data=exact_rows(results, summaries, comparisons, places),
        document=study_document(results, environment, summaries, comparisons, places),
        charts=(Chart(f"{results.measure}, median and {interval_name(summaries)}", percent, bars),) if bars else (),
        notes=study_notes(results, comparisons),
    )
