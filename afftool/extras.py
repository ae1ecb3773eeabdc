"""Packages that only some features need."""

from __future__ import annotations

import importlib
from types import ModuleType

from afftool.errors import LoadError


def need(module: str, extra: str) -> ModuleType:
    """Import `module`. Raises `LoadError`, naming the extra that brings it, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise LoadError(f"this needs {package}: {error}", hint=f"pip install 'afftool[{extra}]'") from error
