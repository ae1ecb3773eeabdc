"""CIFAR's pickles without running anything they say: only dicts, lists, text, numbers and uint8 arrays come out.

A pickle is a program for a small machine, which can name any callable and have it called, and make gigabytes out of a
line. Here the machine is our own: `pickletools` takes the file apart, and of the instructions those that these files
need are carried out, within bounds. It has no way to call anything; the few names that numpy's arrays need are words.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from math import prod
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from afftool.errors import LoadError

_MOST_STEPS = 2_000_000
"""Instructions of a file: seven times those of CIFAR-100's 50,000 images."""
_DEEPEST = 10
_NO_CIFAR = "this is no CIFAR file as distributed; fetch the archive again from a source you trust"


class RefusedError(LoadError):
    """A pickle that holds something CIFAR's files do not."""


class _Name:
    """A callable that the file names, and that is never called."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Dtype:
    """Stands for `numpy.dtype`: only unsigned bytes."""


class _Array:
    """An array under construction, filled by what `ndarray.__setstate__` would be given."""

    def __init__(self) -> None:
        self.array: NDArray[np.uint8] = np.empty(0, np.uint8)


class _Mark:
    """Where on the stack the items of the next list, tuple or dict begin."""


_NAMES = {
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("_codecs", "encode"): "encode",  # how newer Pythons write bytes in old protocols
}


def load(raw: bytes, name: str) -> dict[str, Any]:
    """The dict in a CIFAR pickle, its keys and text as `str`, its arrays uint8.

    Raises `LoadError` naming what was found where it does not belong, or what is broken; nothing of it is run, and it
    takes no more memory than some times the file's size.
    """
    try:
        machine = _Machine()
        content = _Plain(machine.result(raw), machine.steps).value
    except RefusedError as error:
        raise LoadError(f"{name} was not opened: it holds {error.message}", hint=_NO_CIFAR) from None
    except Exception as error:  # a broken pickle can raise nearly anything
        raise LoadError(f"{name} is no readable pickle: {type(error).__name__}: {error}", hint=_NO_CIFAR) from error
    if not isinstance(content, dict):
        raise LoadError(f"{name} holds a {type(content).__name__}, not a dict", hint=_NO_CIFAR)
    return content


class _Machine:
    """The pickle machine: a stack, and a memo of what may be put on it again."""

    def __init__(self) -> None:
        self.steps = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def result(self, raw: bytes) -> Any:
        """What the program leaves on the stack. Raises `RefusedError`, or any error for a program that is broken."""
        for opcode, argument, _ in pickletools.genops(raw):
            self.steps += 1
            if self.steps > _MOST_STEPS:
                raise RefusedError(f"more than {_MOST_STEPS:,} instructions")
            if opcode.name in _LITERALS:
                self._stack.append(_literal(opcode.name, argument))
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            else:
                raise RefusedError(f"the instruction {opcode.name}")
        (value,) = self._stack
        return value

    def to_memo(self, place: int | None) -> None:
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def from_memo(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """The topmost values, so many of them, in order. Raises `IndexError` where they end or a mark is among them."""
        values = [self._stack.pop() for _ in range(count)]
        if any(value is _Mark for value in values):
            raise IndexError("a mark among values")
        return values[::-1]

    def pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self._stack.pop()) is not _Mark:
            values.append(value)
        return values[::-1]

    def append(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        self._top(dict).update(_pairs(values))

    def build(self) -> None:
        """Give the object on the stack its state."""
        (state,) = self.pop(1)
        target = self._stack[-1]
        if isinstance(target, _Array):
            target.array = _array(*state[1:5])
        elif not isinstance(target, _Dtype):
            raise RefusedError("a state for something that is no array")

    def reduce(self) -> None:
        """What the file would have called, from its name and arguments."""
        called, arguments = self.pop(2)
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise RefusedError("a call of something that is no name")
        self.push(_made(called.name, arguments))

    def name(self, text: str) -> None:
        module, _, attribute = text.partition(" ")
        if (module, attribute) not in _NAMES:
            raise RefusedError(f"the name {module}.{attribute}")
        self.push(_Name(_NAMES[module, attribute]))

    def _top(self, kind: type) -> Any:
        top = self._stack[-1]
        if type(top) is not kind:
            raise TypeError(f"a {kind.__name__} is needed to put items into")
        return top


def _pairs(values: list[Any]) -> dict[Any, Any]:
    if len(values) % 2:
        raise ValueError("a key without a value")
    keys = values[::2]
    for key in keys:
        if not isinstance(key, str | bytes | int | float | None):  # hashing tuples of tuples can take forever
            raise RefusedError(f"a {_called(key)} as a key")
    return dict(zip(keys, values[1::2], strict=True))


def _literal(name: str, argument: Any) -> Any:
    """The value that an instruction carries. Python 2's text is bytes, as it says nothing of its encoding."""
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    return argument.encode("latin-1") if name in ("STRING", "BINSTRING", "SHORT_BINSTRING") else argument


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    if name == "array":
        return _Array()
    if name == "dtype":
        code = arguments[0].decode("ascii", "replace") if isinstance(arguments[0], bytes) else str(arguments[0])
        if code.lstrip("|") != "u1":
            raise RefusedError(f"an array of {code!r}, where only bytes (u1) belong")
        return _Dtype()
    if name == "encode":
        text, encoding = (*arguments, "latin1")[:2]
        if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
            raise RefusedError(f"text in encoding {encoding!r}")
        return text.encode("latin1")
    raise RefusedError("a call of numpy.ndarray")  # which the files only name


def _array(shape: Any, dtype: Any, fortran: Any, raw: Any) -> NDArray[np.uint8]:
    sound = isinstance(shape, tuple) and all(type(extent) is int and extent >= 0 for extent in shape)
    if not sound or not isinstance(dtype, _Dtype) or not isinstance(raw, bytes) or len(raw) != prod(shape):
        raise RefusedError("an array that is not plain bytes of the size it claims")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Plain:
    """A value with stand-ins turned into arrays and bytes into text.

    Raises `RefusedError` for any other kind, for depth, and for more items than the file has instructions: it says a
    list once and means it a thousand times, each of which holds a thousand others.
    """

    def __init__(self, value: Any, most_items: int) -> None:
        self._left = most_items
        self.value = self._plain(value, 0)

    def _plain(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            raise RefusedError("lists within lists that explode" if depth <= _DEEPEST else "lists nested too deep")
        if isinstance(value, dict):
            return {self._plain(key, depth + 1): self._plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(item, depth + 1) for item in value]
        if isinstance(value, _Array):
            return value.array
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode()  # half a surrogate pair could never be printed
        if isinstance(value, int | float | None):
            return value
        raise RefusedError(f"a {_called(value)}")


def _called(value: Any) -> str:
    return f"call of {value.name}" if isinstance(value, _Name) else type(value).__name__.strip("_").lower()


def _outside(machine: _Machine, _: Any) -> NoReturn:
    raise RefusedError("a reference to an outside object")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    *_CONSTANTS,
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.to_memo),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.from_memo),
    **dict.fromkeys(("PERSID", "BINPERSID"), _outside),
    "MARK": lambda machine, _: machine.push(_Mark),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "DICT": lambda machine, _: machine.push(_pairs(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": lambda machine, _: machine.name(" ".join(machine.pop(2))),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}
