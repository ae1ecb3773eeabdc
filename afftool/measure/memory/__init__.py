"""Bytes a step holds at its peak, by cause. `peak` is where to begin."""
