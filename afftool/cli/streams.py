"""stdout and stderr of the command, whoever reads them: nobody, a full device, a pipe that was left, a narrow alphabet.

What was to be printed and could not be is an error: the command did not do what was asked. A reader that has left
(`| head`) has what it wanted, and the command ends in silence with the code of a program that SIGPIPE ends. A stderr
that cannot be written changes nothing. Characters that the encoding lacks are written as `\\u2026`, which JSON reads.
"""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from afftool.errors import AfftoolError, OutputError, ReaderLeft

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Descriptor(io.FileIO):
    """Where a stream goes. stdout fails once, in our words, and swallows what comes after; stderr swallows at once."""

    failure: AfftoolError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write what there is room for. Raises `OutputError` and `ReaderLeft`."""
        if self.failure is None:
            try:
                while (written := super().write(data)) is None:  # somebody has set it to answer at once
                    select.select([], [self], [])
                return written
            except BrokenPipeError:
                self.failure = ReaderLeft("the reader of stdout has left")
            except OSError as error:
                self.failure = OutputError(
                    f"stdout cannot be written: {error.strerror}", hint="send it to a file with room, or to a reader"
                )
            if self.fileno() == 1:
                raise self.failure
        return memoryview(data).nbytes


class Guard:
    """The streams while they are guarded."""

    def __init__(self) -> None:
        self._stdout: _Descriptor | None = None

    def take(self, name: str, number: int) -> None:
        """Put a stream of ours in place of Python's own; one that somebody else put there is left alone."""
        before: TextIO | None = getattr(sys, name)
        if before is not getattr(sys, f"__{name}__"):
            return
        descriptor = _Descriptor(number, "w", closefd=False)
        self._stdout = descriptor if number == 1 else self._stdout
        stream = io.TextIOWrapper(
            io.BufferedWriter(descriptor),
            encoding=before.encoding if before else "utf-8",
            errors="backslashreplace",
            line_buffering=number == 2 or descriptor.isatty(),
            write_through=getattr(before, "write_through", False),
        )
        setattr(sys, name, stream)

    def finish(self) -> AfftoolError | None:
        """Write what is still held back; why stdout could not be written, if it could not at any time."""
        if self._stdout is None:
            return None
        try:
            sys.stdout.flush()
        except (OutputError, ReaderLeft) as error:
            return error
        return self._stdout.failure


@contextmanager
def guarded() -> Iterator[Guard]:
    """stdout and stderr guarded while the block runs."""
    before = sys.stdout, sys.stderr
    _fill_closed()
    guard = Guard()
    guard.take("stdout", 1)
    guard.take("stderr", 2)
    try:
        yield guard
    finally:
        guard.finish()
        sys.stdout, sys.stderr = before


def _fill_closed() -> None:
    """Open what the caller has closed: the next file, a store, would get its number, and be printed into."""
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):  # stdout: so that writing fails
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
