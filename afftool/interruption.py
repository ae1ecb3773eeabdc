"""What ends a block early, and what may not: Ctrl-C, a stopped job, a closed terminal. Only where something must be put
back whatever happens: a worktree, the clocks of a GPU.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

_TERMINATIONS: Sequence[signal.Signals] = [
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
]

Handler = Callable[[int, FrameType | None], Any] | int | None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def terminations_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that what it opened is closed.

    One that this process was started to ignore, as `nohup` has it ignore SIGHUP, stays ignored.
    """
    heeded = [number for number in _TERMINATIONS if signal.getsignal(number) is not signal.SIG_IGN]
    previous = _handle(heeded, _interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """No signal ends the block early: a second Ctrl-C must not stop the putting back."""
    previous = _handle([signal.SIGINT, *_TERMINATIONS], signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _handle(numbers: Sequence[signal.Signals], handler: Handler) -> dict[signal.Signals, Handler]:
    """Set a handler; only the main thread may, and elsewhere nothing is set."""
    previous: dict[signal.Signals, Handler] = {}
    for number in numbers:
        try:
            previous[number] = signal.signal(number, handler)
        except ValueError:
            break
    return previous
