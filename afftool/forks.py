"""Copies of this process that a foreign module makes: `os.fork` in its forward, say, or in its constructor.

What a copy does in the module's own code is the module's affair. Where it would return to ours it ends, in silence:
there it would store every row again, answer questions that were asked once, and fork anew at the next step. What
`multiprocessing` forks never returns, and is left alone.
"""

from __future__ import annotations

import functools
import os
import sys
from types import FrameType
from typing import Any

_made = 0
_WITHOUT_RETURN = ("multiprocessing", "subprocess")
"""Modules whose forks end where they began."""


@functools.cache
def watch_forks() -> None:
    """From now on, for good, copies of this process end where they would return to our code."""
    if hasattr(os, "register_at_fork"):  # Windows has no forks
        os.register_at_fork(after_in_child=_end_on_return, after_in_parent=_count)


def copies_made() -> int:
    """How many copies a foreign module has made of this process so far, in the code that we called."""
    return _made


def end_if_copy_of(pid: int) -> None:
    """End this process at once if it is a copy of that one: an extension's `fork` is told to nobody."""
    if os.getpid() != pid:
        os._exit(0)


def _count() -> None:
    global _made
    _made += _caller_of_ours(sys._getframe(1)) is not None


def _end_on_return() -> None:
    ours = _caller_of_ours(sys._getframe(1))
    if ours is None:
        return

    def end(frame: FrameType, event: str, _value: Any) -> None:
        if event == "return" and (frame.f_back is ours or frame is ours):  # by an exception too
            os._exit(0)

    sys.setprofile(end)


def _caller_of_ours(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of ours, which called what forks; None where none did, or the copy never comes back."""
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in _WITHOUT_RETURN:
            return None
        if package == "afftool":
            return frame
        frame = frame.f_back
    return None
