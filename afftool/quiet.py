"""Silence for a library that talks while it is tried: its warnings, and its log below a level."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(logger: str, level: int) -> Iterator[None]:
    """Show no warnings, and of `logger` only what is at `level` or above."""
    talking = logging.getLogger(logger)
    before = talking.level
    talking.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        talking.setLevel(before)
