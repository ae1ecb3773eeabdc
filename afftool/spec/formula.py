"""Values told by a fusion's width: `{channels}`, `{channels//4}`, as a module of the user's own is given them.

A host fuses at many widths, so what depends on the width is kept as text in the spec, and worked out where a fusion is
built. Nothing of it is ever run as Python.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping

from afftool.errors import SpecError
from afftool.spec.amounts import MOST_WHOLE

NAME = "channels"
_FORMULA = re.compile(r"\{([^{}]*)\}")
_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_FUNCTIONS: Mapping[str, Callable[..., float]] = {"min": min, "max": max}
_HINT = "in braces stand channels, numbers, + - * / //, min and max: {channels}, {channels//4}, {max(channels//16,8)}"


def has_formula(text: str) -> bool:
    """Whether a value depends on the width."""
    return _FORMULA.search(text) is not None


def check_formulas(key: str, text: str) -> None:
    """Refuse a value whose formulas cannot be read. Raises `SpecError`."""
    for found in _FORMULA.findall(text):
        _tree(key, found)


def fill(key: str, text: str, channels: int) -> str:
    """The value with each of its formulas worked out for so many channels.

    Raises `SpecError` for one that cannot be read, or whose result is no whole number.
    """
    return _FORMULA.sub(lambda found: str(_whole(key, found[1], channels)), text)


def _whole(key: str, formula: str, channels: int) -> int:
    shown = f"{key}={{{formula}}}"
    try:
        value = _value(_tree(key, formula), channels)
    except ZeroDivisionError:
        raise SpecError(
            f"{shown} divides by 0 at {channels} channels", hint="take fewer parts, or more channels"
        ) from None
    except OverflowError:
        value = math.inf
    if not abs(value) <= MOST_WHOLE:  # said so, not-a-number is refused as well
        raise SpecError(f"{shown} is beyond {MOST_WHOLE:,} at {channels} channels", hint=_HINT)
    if value != int(value):
        raise SpecError(
            f"{shown} is {value:g} at {channels} channels, no whole number", hint="// rounds down, as {channels//3}"
        )
    return int(value)


def _tree(key: str, formula: str) -> ast.expr:
    try:
        tree = ast.parse(formula.strip(), mode="eval").body
        _value(tree, 1)
    except ZeroDivisionError:
        pass
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        raise SpecError(f"{key}={{{formula}}} cannot be worked out", hint=_HINT) from None
    return tree


def _value(node: ast.expr, channels: int) -> float:
    """What a formula gives. Raises `ValueError` for anything but the arithmetic of widths."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id=name) if name == NAME:
            return channels
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, channels), _value(right, channels))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, channels)
        case ast.Call(func=ast.Name(id=name), args=[_, _, *_] as given, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_value(argument, channels) for argument in given))
    raise ValueError(ast.dump(node))
