"""The checks by name, in the order of a review, and the review itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from afftool.inspect.finding import Finding
from afftool.inspect.subject import Subject
from afftool.registry import load

Check = Callable[[Subject], list[Finding]]

CHECKS: dict[str, str] = {
    "output": "afftool.inspect.output:check",
    "dead parameters": "afftool.inspect.dead:check",
    "output scale": "afftool.inspect.scale:check",
    "x and y": "afftool.inspect.symmetry:check",
    "batch of 1": "afftool.inspect.batch:check",
    "mismatched shapes": "afftool.inspect.shapes:check",
    "state in eval": "afftool.inspect.state:check",
    "gate": "afftool.inspect.gate:check",
    "ten blocks": "afftool.inspect.stack:check",
    "graph breaks": "afftool.inspect.graph:check",
    "export": "afftool.inspect.export:check",
}


def review(subject: Subject) -> Iterator[Finding]:
    """Every check's findings, as they come. A check that the module breaks is a finding too, and the rest goes on."""
    for name, path in CHECKS.items():
        check: Check = load(path)
        try:
            yield from check(subject)
        except Exception as error:  # The module is anybody's: whatever it raises is something to say about it.
            yield Finding(
                check=name,
                severity="unknown",
                what=f"could not be checked: {first_line(error)}",
                why="The module raised this where the check called it as module(x, y).",
                do="Call it that way yourself to see the whole traceback.",
                measured={"error": type(error).__name__},
            )
            if name == "output":
                return


def first_line(error: BaseException) -> str:
    """An error as one line: its type and the first thing it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
