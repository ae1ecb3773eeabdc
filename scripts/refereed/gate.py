"""Verdicts on time, as `check` gives them."""

from __future__ import annotations

from refereed.trial import Trial

TRIALS: tuple[Trial, ...] = ()
