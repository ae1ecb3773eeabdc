"""A project's own settings: `afftool.toml`, or `[tool.afftool]` in `pyproject.toml`, in the directory afftool runs in.

The gate's cases and rules stand there (`afftool.gate.config`), and formulas for operators of the user's own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from afftool import received
from afftool.errors import UserError
from afftool.received import Malformed

FILE = "afftool.toml"


def find(directory: Path) -> Path | None:
    """The file that configures afftool in `directory`, or None. Raises `UserError` if it cannot be read.

    Whatever is called so counts: a pipe or a link to nothing is refused when it is read, and not passed over.
    """
    if os.path.lexists(own := directory / FILE):
        return own
    project = directory / "pyproject.toml"
    return project if os.path.lexists(project) and _own_table(project) is not None else None


def read(file: Path) -> dict[str, Any]:
    """The settings in `afftool.toml` or `pyproject.toml`. Raises `UserError` if it is missing or no TOML."""
    return (_own_table(file) or {}) if file.name == "pyproject.toml" else _read(file)


def _own_table(file: Path) -> dict[str, Any] | None:
    """`[tool.afftool]` of a `pyproject.toml`; None where it says nothing of afftool."""
    found: Any = _read(file)
    for depth, key in enumerate(("tool", "afftool"), 1):
        if key not in found:
            return None
        found = found[key]
        if not isinstance(found, dict):
            place = ".".join(("tool", "afftool")[:depth])
            raise UserError(f"{place} in {file} is no table", hint="write [tool.afftool], and its keys below")
    settings: dict[str, Any] = found
    return settings


def _read(file: Path) -> dict[str, Any]:
    try:
        return received.toml_of(received.read_text(file))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", hint="`afftool check --init` writes one") from error
    except Malformed as error:
        raise UserError(f"{file} {error}", hint="a string needs quotes, a table name brackets") from error
