"""The scores beside those the paper published, where the study is one of the paper's."""

from __future__ import annotations

from collections.abc import Mapping

from afftool.report.model import Column, Table
from afftool.study import published
from afftool.study.report.show import percent
from afftool.study.results import Results
from afftool.study.significance import Summary, kendall


def paper_table(results: Results, summaries: Mapping[str, Summary]) -> Table | None:
    """Scores here and there, and how far their orders agree; None where the paper has no such table."""
    key = results.study.published
    if key is None or not published.known(key):
        return None
    rows, ours, theirs, host = [], [], [], results.study.host_spec
    for variant in results.study.variants:
        paper = published.score(key, variant.name, results.study.host_of(variant))
        mean = summaries[variant.name].mean if variant.name in summaries else None
        if paper is not None:
            rows.append((variant.name, mean, paper))
            if mean is not None:
                ours.append(mean)
                theirs.append(paper)
    if not rows:
        return None
    tau = kendall(ours, theirs)
    agreement = "too few variants to rank" if tau is None else f"Kendall's tau = {tau:+.2f} over {len(ours)} variants"
    return Table(
        title=f"Beside the paper ({published.SOURCE}, {published.table_name(key)})",
        columns=(
            Column("variant", "variant"),
            Column("score", "here", percent, numeric=True),
            Column("published", "paper", percent, numeric=True),
        ),
        rows=tuple(rows),
        note=f"Rank agreement: {agreement}. Different data, length of training and classes: the paper trained on "
        f"{published.trained_on(key, host.name)}. Only the order can be compared, and that is weak evidence.",
    )
