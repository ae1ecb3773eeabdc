"""How a study's numbers are written: shares, differences in points, p-values, counts of things."""

from __future__ import annotations


def percent(value: float) -> str:
    """A share: `71.25%`."""
    return f"{100 * value:.2f}%"


def points(value: float | None) -> str:
    """A difference between shares, in points and with its sign: `+1.20`."""
    return "" if value is None else f"{100 * value:+.2f}"


def points_plain(value: float) -> str:
    """A distance between shares, in points: `1.20`."""
    return f"{100 * value:.2f}"


def p_value(value: float | None) -> str:
    """A p-value, with the digits that matter near the level."""
    return "" if value is None else ("<0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}")


def counted(number: int, what: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
