"""How a command ends where nobody meant it to: by what the system refuses, or not at all for a foreign thread."""

from __future__ import annotations

import errno
import os
import reprlib
import sys
import threading
import time
from contextlib import suppress

from afftool import console
from afftool.errors import AfftoolError, UserError

_REFUSALS = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ELOOP, errno.EIO}
"""Errors of the system that say what is wrong with a path or the machine, wherever they come up."""
GRACE_S = 2.0
"""Seconds in which a thread that is about to end does so."""


def end_over_threads(code: object) -> None:
    """End this process with that exit code, if a thread that Python would wait for does not end.

    All that the command had to store and write is there by now. Does nothing where every thread ends.
    """
    until = time.monotonic() + GRACE_S
    for thread in _waited_for():
        thread.join(max(0.0, until - time.monotonic()))
    if left := [thread.name for thread in _waited_for()]:
        console.note(f"{', '.join(left)} did not end by itself: a module started it; this process ends all the same")
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _waited_for() -> list[threading.Thread]:
    """The threads that Python waits for at its end, but for those of pools, which it tells to end."""
    pools = sys.modules.get("concurrent.futures.thread")
    pooled = set(getattr(pools, "_threads_queues", ()))
    here = threading.current_thread()
    return [t for t in threading.enumerate() if t is not here and not t.daemon and t not in pooled]


def refused_by_system(error: Exception) -> AfftoolError | None:
    """What the machine or the user's paths are to blame for, wherever it came up; None for what is a bug of ours."""
    if isinstance(error, MemoryError):
        return UserError("this machine has no memory left for that", hint="ask for less at a time")
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        name = f": {reprlib.repr(os.fsdecode(error.filename))}" if isinstance(error.filename, (str, bytes)) else ""
        return UserError(f"the system says: {error.strerror}{name}", hint="give it a path that can be used, or room")
    if isinstance(error, FileNotFoundError) and _is_nowhere():
        return UserError("the current directory is no longer there", hint="`cd` to one that is")
    return None


def _is_nowhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False
