"""Whoever wants to know how a check ended: the terminal, `--json`, the step summary, annotations and a JUnit file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from afftool import console, written
from afftool.errors import AfftoolError, UserError
from afftool.gate import ci
from afftool.gate.judge import Judgement
from afftool.gate.say import headline, markdown, markdown_of_refusal, reasons, table
from afftool.written import Kind


@dataclass(frozen=True)
class Checked:
    """A check that was carried out. `file` is the configuration it read, None if it took all from the command line.

    `shown` is the judgement as people are told of it, all of it or a part; documents for programs hold all of it.
    """

    judgement: Judgement
    exit_code: int
    seconds: float
    file: Path | None
    strict: bool
    shown: Judgement


class Listener(Protocol):
    """Somewhere that wants to know how a check ended."""

    def told(self, result: Checked) -> None:
        """It was carried out. Raises `UserError` where that cannot be written."""

    def refused(self, error: AfftoolError, seconds: float) -> None:
        """It could not be carried out, after so long."""


def listeners_for(junit: Path | None, *, as_json: bool) -> list[Listener]:
    """Whoever wants to know: the terminal or stdout, then the step summary, annotations and the JUnit file."""
    listeners: list[Listener] = [_Document() if as_json else _Terminal()]
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        listeners.append(_StepSummary(Path(summary)))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        listeners.append(_Annotations(to_stderr=as_json))
    return listeners + ([_Junit(junit)] if junit is not None else [])


class _Terminal:
    def told(self, result: Checked) -> None:
        judgement = result.judgement
        shown = table(result.shown)
        if shown.rows:
            console.table(shown)
        if shown.note:
            console.out(shown.note)
        for what, why in reasons(result.shown):
            console.out(f"{what}\n    {why}")
        for note in judgement.notes:
            console.out(f"note: {note}")
        console.out(f"compared {judgement.before} with {judgement.after}: {headline(judgement)}")

    def refused(self, error: AfftoolError, seconds: float) -> None:
        """Told by `afftool.cli`."""


class _Document:
    def told(self, result: Checked) -> None:
        data = ci.document(result.judgement, exit_code=result.exit_code, seconds=result.seconds)
        console.write(ci.render(data))

    def refused(self, error: AfftoolError, seconds: float) -> None:
        console.write(ci.render(ci.document_of_refusal(error, seconds=seconds)))


@dataclass(frozen=True)
class _StepSummary:
    path: Path

    def told(self, result: Checked) -> None:
        self._append(markdown(result.judgement, result.shown))

    def refused(self, error: AfftoolError, seconds: float) -> None:
        self._append(markdown_of_refusal(error.message, error.hint))

    def _append(self, text: str) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:  # a summary that cannot be shown must not turn a build red
            console.note(f"GITHUB_STEP_SUMMARY cannot be written: {error}")


@dataclass(frozen=True)
class _Annotations:
    """The runner reads commands from both streams."""

    to_stderr: bool

    def told(self, result: Checked) -> None:
        file, here = result.file, Path.cwd()
        config = file.relative_to(here) if file and file.is_relative_to(here) else None
        for command in ci.commands(result.shown, config=config, strict=result.strict):
            self._tell(command)

    def refused(self, error: AfftoolError, seconds: float) -> None:
        self._tell(ci.command_of_refusal(str(error)))

    def _tell(self, command: str) -> None:
        console.command(command, to_stderr=self.to_stderr)


@dataclass(frozen=True)
class _Junit:
    path: Path

    def told(self, result: Checked) -> None:
        self._write(ci.junit(result.judgement, seconds=result.seconds, strict=result.strict))

    def refused(self, error: AfftoolError, seconds: float) -> None:
        try:
            self._write(ci.junit_of_refusal(error, seconds=seconds))
        except UserError as unwritable:
            if unwritable.message != error.message:  # what stopped the check is what matters
                console.note(unwritable.message)

    def _write(self, text: str) -> None:
        written.write(self.path, text, JUNIT)


JUNIT = Kind(
    name="JUnit file of afftool",
    is_ours=lambda head: b"<testsuites " in head[:200] and ci.SUITE.encode() in head[:200],
    instead="name another file by --junit, or remove this one first",
    error=UserError,
)
