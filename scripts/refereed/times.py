"""Intervals of medians and of ratios, as `bench` gives them."""

from __future__ import annotations

from refereed.trial import Trial

TRIALS: tuple[Trial, ...] = ()
