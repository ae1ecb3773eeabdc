"""CIFAR's pickles without running anything they say: only dicts, lists, text, numbers and uint8 arrays come out.

A pickle can name any callable and have it called. Here every name but the five that these files need is refused, and
those five are stand-ins of our own, so that not even numpy acts on what the file says.
"""

from __future__ import annotations

import io
import pickle
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afftool.errors import LoadError


class RefusedError(LoadError):
    """A pickle that holds something CIFAR's files do not."""


class _Dtype:
    """Stands in for `numpy.dtype`: only unsigned bytes."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        text = code.decode("ascii", "replace") if isinstance(code, bytes) else str(code)
        if text.lstrip("|") != "u1":
            raise RefusedError(f"an array of {text!r}, where only bytes (u1) belong")

    def __setstate__(self, state: object) -> None: ...


class _Array:
    """Stands in for an array under construction: keeps what `ndarray.__setstate__` would be given."""

    def __init__(self, *_: object) -> None:
        self.array: NDArray[np.uint8] = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or len(raw) != prod(shape):
            raise RefusedError("an array that is not plain bytes of the size it claims")
        self.array = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _NdarrayType:
    """Stands in for `numpy.ndarray`, which the files only name and never call."""

    def __init__(self, *_: object) -> None:
        raise RefusedError("a call of numpy.ndarray")


def _encode(text: str, encoding: str = "latin1", *_: object) -> bytes:
    """Stands in for `_codecs.encode`, which is how newer Pythons write bytes in old protocols."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise RefusedError(f"text in encoding {encoding!r}")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _NdarrayType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise RefusedError(f"the name {module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError("a reference to an outside object")


def load(raw: bytes, name: str) -> dict[str, Any]:
    """The dict in a CIFAR pickle, its keys and text as `str`, its arrays uint8.

    Raises `LoadError` naming what was found where it does not belong, or what is broken; nothing of it is run.
    """
    hint = "this is no CIFAR file as distributed; fetch the archive again from a source you trust"
    try:
        content = _plain(_Unpickler(io.BytesIO(raw), encoding="bytes").load())
    except RefusedError as error:
        raise LoadError(f"{name} was not opened: it holds {error.message}", hint=hint) from None
    except Exception as error:  # a broken pickle can raise nearly anything
        raise LoadError(f"{name} is no readable pickle: {type(error).__name__}: {error}", hint=hint) from error
    if not isinstance(content, dict):
        raise LoadError(f"{name} holds a {type(content).__name__}, not a dict", hint=hint)
    return content


def _plain(value: Any) -> Any:
    """The value with stand-ins turned into arrays and bytes into text. Raises `RefusedError` for any other kind."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str | int | float | None):
        return value
    raise RefusedError(f"a {type(value).__name__.strip('_')}")
