"""Seconds a step: contestants raced in turns, the clock, and what was unsteady meanwhile. `race` is where to begin."""
