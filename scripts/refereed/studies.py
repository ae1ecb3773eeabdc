"""Claims of ablations."""

from __future__ import annotations

from refereed.trial import Trial

TRIALS: tuple[Trial, ...] = ()
