"""What an exception says, in plain form: it becomes a record's status and reason, or travels to another process."""

from __future__ import annotations

import importlib.util
import os
import sysconfig
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from afftool import errors
from afftool.errors import AfftoolError, Unavailable, ran_out_of_memory
from afftool.masked import told
from afftool.record import Status
from afftool.visible import cut

LONGEST_REASON = 2_000
"""Characters of the first line of an exception's message that a record keeps."""


def message_of(error: BaseException) -> str:
    """What it says, secrets masked and cut where it is too long; a class of the user's own may not be able to."""
    try:
        return told(str(error))
    except Exception as another:
        return f"its message cannot be told: {type(another).__name__}"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What an exception says: another process can tell it, and each command words it its own way.

    `kind` is the exception's class, "" where there was none (a process that died); `ours` that it is one of
    `afftool.errors`; `place` is `file:line` of the user's own code, where there is any.
    """

    kind: str
    message: str
    hint: str | None = None
    place: str | None = None
    ours: bool = False
    out_of_memory: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Self | Failure:
        """What `error` says."""
        if isinstance(error, FailedError):
            return error.failure
        kind = type(error).__name__
        if isinstance(error, AfftoolError):
            ran_out = ran_out_of_memory(error)
            return cls(kind=kind, message=error.message, hint=error.hint, ours=True, out_of_memory=ran_out)
        message, place = message_of(error), _place(error)
        return cls(kind=kind, message=message, place=place, out_of_memory=ran_out_of_memory(error))

    @property
    def error(self) -> AfftoolError | None:
        """The error of `afftool.errors` that it was; None for any other exception."""
        if not self.ours:
            return None
        kind = getattr(errors, self.kind, AfftoolError)
        return (kind if issubclass(kind, AfftoolError) else AfftoolError)(self.message, hint=self.hint)

    @property
    def status(self) -> Status:
        """The status of a record that ended so."""
        if self.out_of_memory:
            return "oom"
        return "skipped" if isinstance(self.error, Unavailable) else "failed"

    @property
    def reason(self) -> str:
        """The reason of that record: a sentence, what to do, and where in the user's own code it happened."""
        hint = f" (hint: {self.hint})" if self.hint else ""
        if self.ours or not self.kind:
            return f"{self.message}{hint}"
        if self.out_of_memory:
            return f"out of memory: {_first_line(self.message)}{hint}"
        place = f" ({self.place})" if self.place else ""
        return f"{self.kind}: {_first_line(self.message)}{place}{hint}"


class FailedError(Exception):
    """Something ended in a failure that is known in plain form alone, such as another process's."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


def _first_line(message: str) -> str:
    return cut(_first_lines(message), LONGEST_REASON)


def _first_lines(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # "backend='inductor' raised:", and what it raised
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else "no message"


def _place(error: BaseException) -> str | None:
    """Where in the user's own code it happened: the last line outside of Python, torch and afftool, if any."""
    torch = importlib.util.find_spec("torch")
    folders = [Path(__file__).parent, *([Path(torch.origin).parent] if torch and torch.origin else [])]
    libraries = tuple(f"{folder}{os.sep}" for folder in folders)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", *libraries)) and not _is_pythons(frame.filename):
            return f"{frame.filename}:{frame.lineno}"
    return None


def _is_pythons(file: str) -> bool:
    """Whether a file is of the standard library; packages may be installed below it, and are not."""
    paths = sysconfig.get_paths()
    inside = [file.removeprefix(f"{paths[name]}{os.sep}") for name in ("stdlib", "platstdlib")]
    return any(rest != file and not rest.startswith(("site-packages", "dist-packages")) for rest in inside)
