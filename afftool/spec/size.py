"""Spatial extents in text: `56`, `56x28`."""

from __future__ import annotations

from afftool.errors import SpecError


def parse_size(text: str, ndim: int) -> tuple[int, ...]:
    """Read `56` (every dimension) or `56x28` (one number a dimension). Raises `SpecError`."""
    parts = text.lower().split("x")
    if not all(p.isdecimal() for p in parts) or len(parts) not in (1, ndim):
        raise SpecError(f"size {text!r} does not fit {ndim}-dimensional maps", hint="for example 56, or 56x28 in 2d")
    numbers = tuple(int(p) for p in parts)
    return numbers * ndim if len(numbers) == 1 else numbers


def show_size(size: tuple[int, ...]) -> str:
    """One number a dimension: `56x28`."""
    return "x".join(map(str, size))
