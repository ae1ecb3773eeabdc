"""A project's own settings: `afftool.toml`, or `[tool.afftool]` in `pyproject.toml`, in the directory afftool runs in.

The gate's cases and rules stand there (`afftool.gate.config`), and formulas for operators of the user's own.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from afftool.errors import UserError

FILE = "afftool.toml"


def find(directory: Path) -> Path | None:
    """The file that configures afftool in `directory`, or None. Raises `UserError` if it cannot be read."""
    if (own := directory / FILE).is_file():
        return own
    project = directory / "pyproject.toml"
    return project if project.is_file() and "afftool" in _read(project).get("tool", {}) else None


def read(file: Path) -> dict[str, Any]:
    """The settings in `afftool.toml` or `pyproject.toml`. Raises `UserError` if it is missing or no TOML."""
    document = _read(file)
    if file.name == "pyproject.toml":
        document = document.get("tool", {}).get("afftool", {})
        if not isinstance(document, dict):
            raise UserError(f"tool.afftool in {file} is no table", hint="write [tool.afftool], and its keys below")
    return document


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}", hint="`afftool check --init` writes one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not TOML: {error}", hint="a string needs quotes, a table name brackets") from error
