"""What grafting takes from torch that torch does not promise to keep, and what is said where it is not there."""

from __future__ import annotations

import torch

from afftool.errors import LoadError

WORKS = "2.9 to 2.14"
"""The versions of torch that have it."""


def lacking(error: Exception) -> LoadError:
    """The error for a torch that has moved or renamed what a graph is read by; `error` names it."""
    return LoadError(
        f"torch {torch.__version__} does not have what a graft is made with: {error}",
        hint=f"graft with torch {WORKS}; everything else runs with this one",
    )
