"""Formulas of the user's own: for operators of the user's own, and for those of torch that have none here.

They stand in the project's file in the current directory, `[tool.afftool.formulas]` of `pyproject.toml` or `[formulas]`
of `afftool.toml`, as `"mylib::op" = "pkg.mod:function"`, and installed packages add theirs by entry points of the group
`afftool.formulas`, with the same two texts. The project's go before a package's.

`function(inputs, output)` gets the arguments of one call in the order of the operator's schema and what the call gave,
all tensors on the meta device, and gives the multiply-adds and the other floating point operations of that call.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from afftool import project, registry
from afftool.errors import LoadError, SpecError
from afftool.measure.cost.formulas import Formula, formula_for
from afftool.measure.cost.operator_work import Call, Work

ENTRY_POINTS = "afftool.formulas"

_OPERATOR = re.compile(r"[A-Za-z_]\w*::\w+")
_EXAMPLE = '"mylib::op" = "pkg.mod:function"'


@dataclass(frozen=True)
class _Own:
    """A function of the user's own, loaded when it is first needed."""

    name: str
    target: str

    @cached_property
    def function(self) -> Any:
        found = registry.load(self.target)
        if not callable(found):
            raise LoadError(f"{self.target}, the formula of {self.name}, is not a function", hint=_called())
        return found

    def __call__(self, call: Call) -> Work:
        """The work of a call. Raises `LoadError` if the function fails or gives something else."""
        inputs = [_on_meta(value) for value in call.arguments.values()]
        try:
            given = self.function(inputs, _on_meta(call.result))
        except LoadError:
            raise
        except (Exception, SystemExit) as error:
            shown = f"{type(error).__name__}: {error}"
            raise LoadError(f"{self.target}, the formula of {self.name}, failed: {shown}", hint=_called()) from error
        try:
            macs, other = map(operator.index, given)
        except (TypeError, ValueError):
            macs = other = -1
        if macs < 0 or other < 0:
            raise LoadError(f"{self.target}, the formula of {self.name}, gave {given!r}", hint=_called())
        return Work(macs, other)


def _called() -> str:
    return "it is called as function(inputs, output) and gives two whole numbers, (macs, other_flops)"


def _on_meta(value: Any) -> Any:
    def moved(x: Any) -> Any:
        return x.detach().to("meta") if isinstance(x, torch.Tensor) else x

    return tree_map(moved, value)


def own_formulas(directory: Path | None = None, *, load: bool = False) -> Mapping[str, Formula]:
    """The user's formulas by the names of their operators, `mylib::op`; those of `directory`, the current one if None.

    A function is loaded when its operator is met, which only a module of the user's own has; with `load`, the project's
    are loaded here: where such a module was named, and not because a folder that was received has a file that names
    functions. Raises `SpecError` for an entry that cannot be, `LoadError` for a function that is loaded and is not
    there, and `UserError` for a file that cannot be read.
    """
    found: dict[str, Formula] = {}
    for name, target in registry.entry_points(ENTRY_POINTS).items():
        found[name] = _formula(name, target, f"the entry points {ENTRY_POINTS}")[1]
    file = project.find(directory or Path.cwd())
    if file is None:
        return found
    table = project.read(file).get("formulas", {})
    where = f"the formulas of {file.name}"
    if not isinstance(table, Mapping):
        raise SpecError(f"{where} are no table", hint=f"write [formulas], and below it {_EXAMPLE}")
    for name, target in table.items():
        own, found[name] = _formula(name, target, where)
        if load:
            own.function  # noqa: B018  # told before any work
    return found


def _formula(name: str, target: Any, where: str) -> tuple[_Own, Formula]:
    if not _OPERATOR.fullmatch(name):
        spelt = _spelt(name, target)
        example = f'"{spelt}" = "pkg.mod:function"' if spelt else _EXAMPLE
        raise SpecError(f"{name!r} in {where} is no operator", hint=f"write namespace and name: {example}")
    if not isinstance(target, str) or not all(target.partition(":")[::2]) or not target.isprintable():
        raise SpecError(f"{name} in {where} has no function: {target!r}", hint=f"name one: {_EXAMPLE}")
    if name.startswith("aten::"):
        _refuse_known(name, where)
    own = _Own(name, target)
    return own, Formula(own, f"yours: {target}", is_own=True)


def _spelt(name: str, target: Any) -> str | None:
    """The operator that was meant by `mylib.op`, with a dot in quotes, or without (TOML's tables in tables)."""
    while isinstance(target, Mapping) and len(target) == 1:
        ((below, target),) = target.items()
        name = f"{name}.{below}"
    spelt = name.replace(".", "::", 1)
    return spelt if _OPERATOR.fullmatch(spelt) else None


def _refuse_known(name: str, where: str) -> None:
    """An operator of torch that does not exist, that has a formula, or that never runs because it is made of others."""
    packet = getattr(torch.ops.aten, name.partition("::")[2], None)
    if packet is None:
        raise SpecError(f"{name} in {where} is no operator of torch", hint="a typo, or one of another version")
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    if any(map(formula_for, overloads)):
        raise SpecError(f"{name} in {where} has a formula already", hint="take it out; `--explain` shows ours")
    if all(overload._can_decompose() for overload in overloads):
        raise SpecError(
            f"{name} in {where} is made of other operators, and they are what runs and is counted",
            hint="take it out, and give a formula to those that `uncounted_ops` names",
        )
