"""The checks by name, in the order of a review, and the review itself."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator

import torch

from afftool.console import quiet
from afftool.failure import Failure
from afftool.global_state import kept
from afftool.inspect.finding import Finding
from afftool.inspect.sizes import Size, at_size, runs_at, spoken, spoken_list
from afftool.inspect.subject import RAISED, SEED, Subject
from afftool.registry import load
from afftool.spec import show_size

Check = Callable[[Subject], list[Finding]]

CHECKS: dict[str, str] = {
    "output": "afftool.inspect.output:output",
    "sizes": "afftool.inspect.sizes:sizes",
    "dead parameters": "afftool.inspect.gradients:dead_parameters",
    "output scale": "afftool.inspect.scale:output_scale",
    "x and y": "afftool.inspect.gradients:x_and_y",
    "batch of 1": "afftool.inspect.output:batch_of_1",
    "mismatched shapes": "afftool.inspect.output:mismatched_shapes",
    "state in eval": "afftool.inspect.output:state_in_eval",
    "16 bits": "afftool.inspect.precision:sixteen_bits",
    "gate": "afftool.inspect.attention:attention_weights",
    "ten blocks": "afftool.inspect.scale:ten_blocks",
    "graph breaks": "afftool.inspect.tracing:graph_breaks",
    "export": "afftool.inspect.tracing:export",
}
"""The name that findings carry, and the function that finds."""

NEEDS: dict[str, tuple[str, ...]] = {
    "finite": ("dead parameters", "output scale", "x and y", "batch of 1", "16 bits", "gate", "ten blocks", "export"),
    "trainable": ("dead parameters", "x and y", "ten blocks"),
}
"""What the output must be (the output check's `measured`) for these checks to mean anything."""

AT_OTHER_SIZES = ("output scale", "x and y", "batch of 1", "mismatched shapes", "state in eval", "gate")
"""Checks that cost little, and are made at two more sizes; what they hold against it says at which."""
_MORE = 2


def review(subject: Subject) -> Iterator[Finding]:
    """Every check's findings, as they come. A check that the module breaks is a finding too, and the rest goes on.

    A module that cannot be called at all ends it, with `measured["runs"]` false.
    """
    spared: dict[str, str] = {}
    sizes = [subject.size]
    for name, path in CHECKS.items():
        if name in spared:
            yield Finding(check=name, severity="unknown", what=f"not looked at, since {spared[name]}")
            continue
        check = load(path)
        findings = _run(name, check, subject)
        if name in AT_OTHER_SIZES:
            found = {size: _run(name, check, at_size(subject, size)) for size in sizes[1 : 1 + _MORE]}
            findings = _with_sizes(subject.size, findings, found)
        findings = [dataclasses.replace(finding, check=name) for finding in findings]
        yield from findings
        if name == "sizes":
            works = (finding.measured.get("works", ()) for finding in findings)
            sizes = [tuple(size) for size in next(works, ())]
        if name == "output":
            for finding in findings:
                if finding.measured.get("runs") is False:
                    return
                for need, checks in NEEDS.items():
                    if finding.measured.get(need) is False:
                        spared = dict.fromkeys(checks, finding.what) | spared


def _with_sizes(asked: Size, here: list[Finding], there: dict[Size, list[Finding]]) -> list[Finding]:
    """The findings at the size asked for, those against it with where they hold, and those of other sizes alone.

    One kind of finding has one reason, whatever its numbers: that is what it is known by. What holds at every size that
    was tried says nothing of sizes.
    """
    findings = []
    known = {(f.severity, f.why) for f in here}
    for finding in here:
        kind = (finding.severity, finding.why)
        without = [size for size, found in there.items() if kind not in {(f.severity, f.why) for f in found}]
        if finding.severity in ("fault", "warning") and without:
            holds = [asked, *(size for size in there if size not in without)]
            finding = dataclasses.replace(
                finding,
                what=f"{finding.what} (at {spoken_list(holds)}; not at {spoken_list(without)})",
                measured={**finding.measured, "holds_at": [list(size) for size in holds]},
            )
        findings.append(finding)
    for found in there.values():
        for finding in found:
            kind = (finding.severity, finding.why)
            if finding.severity in ("fault", "warning") and kind not in known:
                known.add(kind)
                holds = [size for size, those in there.items() if kind in {(f.severity, f.why) for f in those}]
                findings.append(
                    dataclasses.replace(
                        finding,
                        what=f"at {spoken_list(holds)}, not at {spoken(asked)}: {finding.what}",
                        measured={**finding.measured, "holds_at": [list(size) for size in holds]},
                    )
                )
    if any(f.severity in ("fault", "warning") for f in findings):
        findings = [f for f in findings if f.severity != "ok" or len(here) > 1]
    return findings


def _run(name: str, check: Check, subject: Subject) -> list[Finding]:
    """One check, its random numbers its own, and without what torch would say beside it."""
    try:
        with kept(subject.targets, "while it ran"), torch.random.fork_rng(devices=[]), quiet("torch", logging.ERROR):
            torch.manual_seed(SEED)
            return check(subject)
    except RAISED as error:  # The module is anybody's: whatever it raises is something to say about it.
        if name == "output":
            return [_does_not_run(subject, error, runs_at(subject))]
        return [
            Finding(
                severity="unknown",
                what=f"could not be checked: {Failure.of(error).reason}",
                why="The module raised this where the check called it as module(x, y).",
                do="Call it that way yourself to see the whole traceback.",
                measured={"error": type(error).__name__},
            )
        ]


def _does_not_run(subject: Subject, error: BaseException, sizes: list[Size]) -> Finding:
    do = (subject.fusion and subject.fusion.hint_on(str(error))) or ""
    do = do or "Call it that way yourself to see the whole traceback."
    measured = {"error": type(error).__name__, "runs": False, "runs_at": [list(size) for size in sizes]}
    if sizes:
        do = f"It runs at {spoken_list(sizes)}: `--size {show_size(sizes[0])}` looks at it there. {do}"
    return Finding(
        severity="fault",
        what=f"calling it fails: {Failure.of(error).reason}",
        why="A fusion is called as module(x, y) with feature maps of one shape; nothing else can be looked at.",
        do=do,
        measured=measured,
    )
