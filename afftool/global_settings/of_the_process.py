"""What the system holds for the process: code that runs changes it as easily as code that is loaded.

A module that moves to another folder, closes stdout or sets an alarm would have the report written elsewhere, every row
lost, or the process killed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial

from afftool.global_settings.setting import Setting

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGPROF")
_TIMERS = {"ITIMER_REAL": "alarm", "ITIMER_VIRTUAL": "timer of its own time", "ITIMER_PROF": "timer of all its time"}
_LIMITS = ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_CPU")
_STREAMS = {0: "stdin", 1: "stdout", 2: "stderr"}


def processes() -> Iterator[Setting]:
    """The settings of the process, as far as the system has them."""
    yield Setting("current directory", _directory, os.chdir)
    if threading.current_thread() is threading.main_thread():
        for name in _SIGNALS:
            if number := getattr(signal, name, None):
                yield Setting(f"handler of {name}", partial(signal.getsignal, number), partial(signal.signal, number))
    for name, words in _TIMERS.items():
        if (timer := getattr(signal, name, None)) is not None:
            yield Setting(words, partial(_runs, timer), partial(_stop_timer, timer))
    for number, name in _STREAMS.items():
        yield Setting(f"where {name} leads", partial(_Descriptor, number), _Descriptor.put_back)
    for number, name in list(_STREAMS.items())[1:]:
        yield Setting(f"Python's {name}", partial(getattr, sys, name), partial(_put_stream_back, name))
        yield Setting(f"Python's {name} closed", partial(_closed, name), partial(_reopen, number, name))
    if hasattr(os, "getpriority"):
        yield Setting("priority", partial(os.getpriority, os.PRIO_PROCESS, 0), _set_priority)
    if resource:
        yield Setting("limits", _limits, _set_limits)


class _Descriptor:
    """What a file descriptor led to when it was looked at, kept open so that it can lead there again."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._what: tuple[int, ...] | None = None
        self._copy = -1
        with suppress(OSError):  # it is closed
            found = os.fstat(number)
            self._what = (found.st_dev, found.st_ino, found.st_rdev)
            self._copy = os.dup(number)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descriptor) and (self.number, self._what) == (other.number, other._what)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return "elsewhere" if self._what else "nowhere"

    def __del__(self) -> None:
        if self._copy >= 0:
            with suppress(OSError):
                os.close(self._copy)

    def put_back(self) -> None:
        """Have the number lead to the same again."""
        if self._copy >= 0:
            os.dup2(self._copy, self.number)
        else:
            os.close(self.number)


def _directory() -> str | None:
    with suppress(OSError):  # it was removed
        return os.getcwd()
    return None


def _runs(timer: int) -> bool:
    return signal.getitimer(timer)[0] > 0


def _stop_timer(timer: int, on: bool) -> None:
    if not on:  # one that was running before has an end that nobody knows any more
        signal.setitimer(timer, 0)


def _closed(name: str) -> bool:
    return bool(getattr(getattr(sys, name), "closed", False))


def _put_stream_back(name: str, stream: object) -> None:
    if not getattr(stream, "closed", False):  # a block within this one has opened it anew
        setattr(sys, name, stream)


def _reopen(number: int, name: str, closed: bool) -> None:
    if not closed:
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False))


def _set_priority(wanted: int) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, wanted)


def _limits() -> dict[str, tuple[int, int]]:
    return {name: resource.getrlimit(getattr(resource, name)) for name in _LIMITS if hasattr(resource, name)}


def _set_limits(wanted: Mapping[str, tuple[int, int]]) -> None:
    for name, both in wanted.items():
        with suppress(ValueError, OSError):  # a hard limit that was lowered stays so
            resource.setrlimit(getattr(resource, name), both)
