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
from afftool.inspect.subject import RAISED, SEED, Subject
from afftool.registry import load

Check = Callable[[Subject], list[Finding]]

CHECKS: dict[str, str] = {
    "output": "afftool.inspect.output:output",
    "dead parameters": "afftool.inspect.gradients:dead_parameters",
    "output scale": "afftool.inspect.scale:output_scale",
    "x and y": "afftool.inspect.gradients:x_and_y",
    "16 bits": "afftool.inspect.output:short_floats",
    "batch of 1": "afftool.inspect.output:batch_of_1",
    "mismatched shapes": "afftool.inspect.output:mismatched_shapes",
    "state in eval": "afftool.inspect.output:state_in_eval",
    "gate": "afftool.inspect.attention:attention_weights",
    "ten blocks": "afftool.inspect.scale:ten_blocks",
    "graph breaks": "afftool.inspect.tracing:graph_breaks",
    "export": "afftool.inspect.tracing:export",
}
"""The name that findings carry, and the function that finds."""

NEEDS: dict[str, tuple[str, ...]] = {
    "finite": ("dead parameters", "output scale", "x and y", "16 bits", "batch of 1", "gate", "ten blocks", "export"),
    "trainable": ("dead parameters", "x and y", "ten blocks"),
}
"""What the output must be (the output check's `measured`) for these checks to mean anything."""


def review(subject: Subject) -> Iterator[Finding]:
    """Every check's findings, as they come. A check that the module breaks is a finding too, and the rest goes on.

    A module that cannot be called at all ends it, with `measured["runs"]` false.
    """
    spared: dict[str, str] = {}
    for name, path in CHECKS.items():
        if name in spared:
            yield Finding(check=name, severity="unknown", what=f"not looked at, since {spared[name]}")
            continue
        findings = [dataclasses.replace(finding, check=name) for finding in _run(name, load(path), subject)]
        yield from findings
        if name == "output":
            for finding in findings:
                if finding.measured.get("runs") is False:
                    return
                for need, checks in NEEDS.items():
                    if finding.measured.get(need) is False:
                        spared = dict.fromkeys(checks, finding.what) | spared


def _run(name: str, check: Check, subject: Subject) -> list[Finding]:
    """One check, its random numbers its own, and without what torch would say beside it."""
    try:
        with kept(subject.targets, "while it ran"), torch.random.fork_rng(devices=[]), quiet("torch", logging.ERROR):
            torch.manual_seed(SEED)
            return check(subject)
    except RAISED as error:  # The module is anybody's: whatever it raises is something to say about it.
        if name == "output":
            return [_does_not_run(subject, error)]
        return [
            Finding(
                severity="unknown",
                what=f"could not be checked: {Failure.of(error).reason}",
                why="The module raised this where the check called it as module(x, y).",
                do="Call it that way yourself to see the whole traceback.",
                measured={"error": type(error).__name__},
            )
        ]


def _does_not_run(subject: Subject, error: BaseException) -> Finding:
    return Finding(
        severity="fault",
        what=f"calling it fails: {Failure.of(error).reason}",
        why="A fusion is called as module(x, y) with feature maps of one shape; nothing else can be looked at.",
        do=(subject.fusion and subject.fusion.hint_on(str(error)))
        or "Call it that way yourself to see the whole traceback.",
        measured={"error": type(error).__name__, "runs": False},
    )
