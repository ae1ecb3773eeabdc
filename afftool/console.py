"""The only file that prints. Results go to stdout; what is said about them, and progress with `--json`, to stderr.

Whatever is printed may hold text of others: it is shown as `afftool.visible` has it, a table's cells on one line each.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, Protocol

from afftool import units, visible
from afftool.errors import UserError
from afftool.masked import told

if TYPE_CHECKING:
    from rich.console import Console

    from afftool.tables import Table

PLAIN_PROGRESS_EVERY_S = 10.0
"""In a pipe or in CI, how far it is and how long it takes is told no more often than this, results or none between."""


def out(text: str = "") -> None:
    """A result, or a line of one."""
    print(visible.said(text))


def write(text: str) -> None:
    """A whole document, as its format has made it."""
    sys.stdout.write(text)
    sys.stdout.flush()


def command(text: str, *, to_stderr: bool = False) -> None:
    """A line that the CI runner that reads this log is to obey."""
    print(visible.line(text), file=sys.stderr if to_stderr else sys.stdout)


@contextmanager
def stdout_kept(wanted: bool = True) -> Iterator[None]:
    """Keep stdout for the document that follows the block: what anybody writes there meanwhile goes to stderr.

    A user's module may print, from Python, from C, or in a process it starts. Where that is not `wanted`, nothing is
    changed.
    """
    if not wanted:
        yield
        return
    ours = sys.stdout
    ours.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        ours.flush()  # whoever held on to it, as a logging handler does
        with suppress(OSError, TypeError, AttributeError):  # what C code has printed and not yet written
            ctypes.CDLL(None).fflush(None)
        try:
            os.dup2(kept, 1)
            os.close(kept)
        except OSError as error:
            raise UserError(
                f"a module has closed files of this process that are not its own, stdout among them: {error.strerror}",
                hint="--isolate process keeps a bench from that",
            ) from error


@contextmanager
def quiet(logger: str, level: int) -> Iterator[None]:
    """Silence for a library that talks while it is tried: no warnings, and of its log only what is at `level` or above.

    `logger` is the log's name.
    """
    talking = logging.getLogger(logger)
    before = talking.level
    talking.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        talking.setLevel(before)


def note(text: str) -> None:
    """Something about a result: where it was saved, what to do next."""
    print(visible.said(text), file=sys.stderr)


def error(message: str, hint: str | None = None) -> None:
    """What is wrong with the request, and what to do."""
    note(f"error: {message}")
    if hint:
        note(f"hint: {hint}")


def bug(problem: BaseException) -> None:
    """A crash: the traceback, then whose fault it is."""
    import traceback

    note(told("".join(traceback.format_exception(problem)).rstrip("\n")))
    note(f"error: this is a bug of ours, not of yours: {told(f'{type(problem).__name__}: {problem}')}")
    note("hint: please report it with the lines above and the output of `afftool doctor`")


def pairs(rows: Mapping[str, str] | list[tuple[str, str]], indent: int = 0) -> None:
    """Names and what they mean, in two columns."""
    given = list(rows.items()) if isinstance(rows, Mapping) else rows
    items = [(visible.line(name), visible.line(text)) for name, text in given]
    width = max((len(name) for name, _ in items), default=0)
    for name, text in items:
        out(f"{' ' * indent}{name.ljust(width)}  {text}".rstrip())


def table(data: Table) -> None:
    """A table: styled on a terminal, plain and never cut off elsewhere."""
    if _is_terminal(sys.stdout):
        _rich_table(data)
        return
    headings = [visible.line(column.heading) for column in data.columns]
    marked = [[visible.line(text) + "*" * best for _, text, best in row] for row in data.shown_rows()]
    widths = [max(len(row[i]) for row in (headings, *marked)) for i in range(len(headings))]
    for row in (headings, ["-" * width for width in widths], *marked):
        aligned = (
            text.rjust(width) if column.numeric else text.ljust(width)
            for text, width, column in zip(row, widths, data.columns, strict=True)
        )
        out("  ".join(aligned).rstrip())


class Follow(Protocol):
    """Hears how far something is."""

    def __call__(self, done: float, total: float, doing: str) -> None:
        """So much of the whole is done, and this is going on now."""


def nobody(done: float, total: float, doing: str) -> None:
    """Nobody follows."""


class Following(Protocol):
    """Where a running command tells how far it is."""

    def progress(self, done: float, total: float, doing: str) -> None:
        """As a `Follow` hears it."""

    def line(self, text: str) -> None:
        """A result, as soon as it is there."""


@contextmanager
def following(*, to_stderr: bool = False, clock: Callable[[], float] = time.monotonic) -> Iterator[Following]:
    """Follow a running command: a bar with the time left on a terminal, plain lines in a pipe or in CI."""
    stream = sys.stderr if to_stderr else sys.stdout
    if not _is_terminal(stream):
        yield Lines(stream, clock)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    doing, left = TextColumn("{task.description}", markup=False), TimeRemainingColumn()
    columns = (doing, BarColumn(), TimeElapsedColumn(), TextColumn("left"), left)
    with Progress(*columns, console=_console(stderr=to_stderr), transient=True) as bar:
        yield _Bar(bar)


class _Bar:
    """A bar at the foot of the terminal, results above it."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None)

    def progress(self, done: float, total: float, doing: str) -> None:
        self._bar.update(self._task, completed=done, total=total or None, description=visible.line(doing))

    def line(self, text: str) -> None:
        self._bar.console.print(visible.said(text), markup=False, highlight=False, soft_wrap=True)


class Lines:
    """Plain lines: every result, and now and then how far it is and how long it will still take."""

    def __init__(self, stream: Any, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._started = self._told = clock()

    def progress(self, done: float, total: float, doing: str) -> None:
        """Told at most every `PLAIN_PROGRESS_EVERY_S` seconds."""
        now = self._clock()
        if now - self._told < PLAIN_PROGRESS_EVERY_S:
            return
        elapsed = now - self._started
        left = f", about {units.seconds(elapsed * (total - done) / done)} left" if 0 < done <= total else ""
        percent = f"{100 * done / total:.0f}% done" if total else "working"
        self._told = now
        self.line(f"... {percent} after {units.seconds(elapsed)}{left}: {visible.line(doing)}")

    def line(self, text: str) -> None:
        """Written and flushed at once, so that a log shows it when it happened."""
        print(visible.said(text), file=self._stream, flush=True)


def _is_terminal(stream: Any) -> bool:
    return bool(stream.isatty()) and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _rich_table(data: Table) -> None:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in data.columns:
        heading = Text(visible.line(column.heading))
        drawn.add_column(heading, justify="right" if column.numeric else "left", overflow="fold")
    for row in data.shown_rows():
        drawn.add_row(*(Text(visible.line(text), "bold green" if best else "") for _, text, best in row))
    _console().print(drawn)
