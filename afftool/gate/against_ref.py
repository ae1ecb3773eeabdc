"""Against a git ref: the working tree and a commit of its repository, both built and measured in this job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from afftool.errors import AfftoolError, BaselineError
from afftool.gate.check import Checking, global_state_notes, graver_first, judged, refuse_nothing
from afftool.gate.config import GateCase
from afftool.gate.contest import Result, compete, entrant
from afftool.gate.judge import Judgement, Pair, judge
from afftool.gate.left_out import pointers_note
from afftool.gate.reading import Reading
from afftool.gate.side import (
    Readings,
    Side,
    add_instructions,
    read_exact,
    without_time,
)
from afftool.gate.worktree import find_repository, plan_worktree, targets


def against_ref(checking: Checking, ref: str) -> Judgement:
    """Compare the working tree with a commit of its repository, both built and measured in this job.

    Raises `UserError` where there is no such commit, and `BaselineError` if no case exists there.
    """
    repository = find_repository(checking.here)
    commit = repository.resolve(ref)
    packages = targets(checking.cases)
    with repository.worktree(commit) as tree:
        there = tree / repository.here.relative_to(repository.root)
        if not there.is_dir():
            with graver_first(checking):
                raise BaselineError(
                    f"{repository.here.name}/ does not exist at {ref}", hint="start the check in a directory that does"
                )
        imports = plan_worktree(packages, repository.root, repository.here, tree)
        with Side(there, imports, threads=checking.threads) as before, checking.here_side() as after:
            readings, results = _measure_both(checking, before, after)
        notes = pointers_note(repository.root, tree)
    notes += _same_code_notes(checking, imports.packages, ref)
    old, new = readings
    notes += _notes_on_times(list(results.values()))
    notes += global_state_notes(checking, new)
    pairs = [_contested(case, old[case.name], new[case.name], results.get(case.name), ref) for case in checking.cases]
    if not any(pair.before for pair in pairs) and not any(new[case.name].status == "failed" for case in checking.cases):
        reasons = "; ".join(dict.fromkeys(pair.absent for pair in pairs))
        raise BaselineError(f"no case can be compared with {ref}: {reasons}", hint="compare with a newer ref")
    verdicts = judge(pairs, checking.config.rules, checking.metrics)
    return judged(checking.config, verdicts, f"{ref} ({commit[:12]})", "working tree", notes)


def _measure_both(checking: Checking, before: Side, after: Side) -> tuple[list[Readings], dict[str, Result]]:
    sides = [before, after]
    with graver_first(checking):
        readings = read_exact(sides, checking.cases, checking.metrics, checking.follow)
    refuse_nothing(readings[1], checking.config)
    if "instructions" in checking.metrics:
        add_instructions(sides, checking.cases, readings, checking.follow)
    results: dict[str, Result] = {}
    if not checking.timed:
        return readings, results
    running = [case for case in checking.cases if all(found[case.name].status == "ok" for found in readings)]

    def told(done: float, name: str, pair: int) -> None:
        checking.follow(done, len(running), f"time of {name}, before and after in turns, pair {pair}")

    came = compete(
        before,
        after,
        [entrant(checking.config.rules, case, checking.metrics) for case in running],
        budget_s=checking.budget_s,
        cores=checking.cores,
        told=told,
    )
    for name, result in came.items():
        if isinstance(result, AfftoolError):
            readings[1][name] = without_time(readings[1][name], result)
            continue
        results[name] = result
        for found, times in zip(readings, (result.before_ms, result.after_ms), strict=True):
            found[name] = replace(found[name], times_ms=times)
    return readings, results


def _contested(case: GateCase, before: Reading, after: Reading, result: Result | None, ref: str) -> Pair:
    known = before.status == "ok"
    pair = Pair(
        case=case.name,
        before=before if known else None,
        after=after,
        absent=f"at {ref} it does not run: {before.reason}",
    )
    if result is None:
        return pair
    return replace(
        pair,
        ratio=result.ratio,
        after_ms=(result.after.low, result.after.high) if result.after else None,
        pairs=result.pairs,
        pairs_needed=result.pairs_needed,
        budget_s=result.budget_s,
    )


def _notes_on_times(results: Sequence[Result]) -> list[str]:
    """On what times stand that were taken in turns."""
    if not results:
        return []
    fewest, most = (choose(result.pairs for result in results) for choose in (min, max))
    pairs = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    together = "" if len(results) == 1 else f" and all {len(results)} cases"
    return [
        f"times are of {pairs} pairs of fresh processes; their intervals are of 95%, for all looks{together} together"
    ]


def _same_code_notes(checking: Checking, packages: Sequence[str], ref: str) -> list[str]:
    """Which cases are the same code on both sides, because nothing of them lies in the repository."""
    if "afftool" in packages:
        return []
    same = [case.name for case in checking.cases if not targets([case])]
    return [f"the same code at {ref} and now, afftool's own: {', '.join(same)}"] if same else []
