"""What may be claimed of a study now: the looks that are complete, and what waits for cells or was not planned."""

from __future__ import annotations

import dataclasses
import itertools

from afftool.study.report.words import counted
from afftool.study.results import Results
from afftool.study.significance import Comparison, compare


def claims(results: Results, pairs: list[tuple[str, str]] | None = None) -> tuple[list[Comparison], str]:
    """Every comparison of the study, and the rule by which its looks count, in a line: nothing for a single look.

    Or those of other `pairs`, together. Nothing is claimed before all planned cells are there, nor of a part of them.
    """
    mine = set(results.study.seeds)
    planned, *more = results.looks or (results.study.seeds,)
    pairs = results.study.comparisons(pairs=results.pairs) if pairs is None else pairs
    missing = results.missing(planned) if mine.issuperset(planned) else 0
    if missing or not mine.issuperset(planned):
        why = (
            f"{missing} of {len(planned) * len(results.study.variants)} planned cells are missing"
            if missing
            else f"{counted(len(planned), 'seed')} were planned first, and these are fewer"
        )
        return [_waiting(c, f"{why}: nothing is claimed yet") for c in _compared(results, pairs, (tuple(mine),))], ""
    looks = [planned]
    for look in more:
        if mine.issuperset(look) and not results.missing(look):
            looks.append(look)
    return _compared(results, pairs, looks), _rule(results, planned, more, looks)


def _compared(
    results: Results, pairs: list[tuple[str, str]], looks: list[tuple[int, ...]] | tuple[tuple[int, ...], ...]
) -> list[Comparison]:
    seen = set(looks[-1])
    scores = {name: {s: value for s, value in of.items() if s in seen} for name, of in results.scores().items()}
    failed = {name: seeds & seen for name, seeds in results.failed().items()}
    return compare(scores, pairs, failed=failed, looks=looks, margin=results.margin)


def _waiting(comparison: Comparison, why: str) -> Comparison:
    """The comparison as far as it can be told without looking at what a claim would rest on."""
    silent = Comparison(variant=comparison.variant, against=comparison.against, seeds=comparison.seeds, withheld=why)
    return dataclasses.replace(
        silent, difference=comparison.difference, typical=comparison.typical, failed=comparison.failed
    )


def _rule(results: Results, planned: tuple[int, ...], more: list[tuple[int, ...]], looks: list[tuple[int, ...]]) -> str:
    if not more:
        return ""
    counts = [len(planned), *(len(look) for look in more)]
    added = " and ".join(str(after - before) for before, after in itertools.pairwise(counts))
    text = (
        f"{counted(len(planned), 'seed')} planned, {added} added: what the planned ones claim stands, and what they "
        "would have claimed by luck counts against every later look, so that all looks together claim what is not "
        "there in at most 5% of such studies"
    )
    if missing := results.missing(results.study.seeds):
        text += f"; {counted(missing, 'cell')} of the added seeds are missing, and the claims are of {len(looks[-1])}"
    return text
