"""The end of a command that a thread of a foreign module would keep from ending."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

from afftool import console

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
