"""Watching a module run: every ATen operator it calls, in which module, forward and backward.

Backward operators are put down to the module whose forward operator made their autograd node; the addition of gradients
that meet in one map, to the module whose gradient comes second.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from afftool.measure.cost.formulas import Formula, formula_for
from afftool.measure.cost.operator_work import Call, Work
from afftool.measure.cost.own_formulas import own_formulas
from afftool.measure.cost.reading import Direction, OperatorCost
from afftool.measure.cost.traffic import moved_bytes
from afftool.measure.running import followed


class _Tally:
    """Running sums of one operator in one module and direction."""

    def __init__(self, formula: str | None) -> None:
        self.formula = formula
        self.calls = self.macs = self.flops = self.moved_bytes = self.torch_flops = 0

    def add(self, work: Work, moved: int, torch_flops: int) -> None:
        self.calls += 1
        self.macs += work.macs
        self.flops += work.flops
        self.moved_bytes += moved
        self.torch_flops += torch_flops


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, counts every operator; `rows()` gives the sums.

    `watch(module)` first, so that operators are put down to modules. Set `direction` before a backward pass. The first
    error of a formula of the user's own is kept in `failure`. Raises as `own_formulas` does when it is made.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.direction: Direction = "forward"
        self.failure: Exception | None = None
        self._own = own_formulas()
        self._tallies: dict[tuple[str, str, Direction], _Tally] = {}
        self._paused = False
        self._inside: list[str] = []
        self._owner: dict[int, str] = {}
        self._numbers: list[int] = []
        self._modules: list[str] = []

    def pause(self, paused: bool) -> None:
        """Leave out what runs from now on, or no longer."""
        self._paused = paused

    @contextmanager
    def watch(self, module: nn.Module) -> Iterator[None]:
        """Follow which of `module`'s modules is running; a scripted one is a whole, whatever it calls inside."""
        modules = dict(module.named_modules())
        for path, child in modules.items():
            self._owner |= {id(p): path for p in child.parameters(recurse=False)}
        with followed(modules, enter=self._inside.append, leave=lambda *_: self._leave()):
            yield

    def rows(self) -> tuple[OperatorCost, ...]:
        """One row an operator, module and direction, in the order they were first seen."""
        return tuple(
            OperatorCost(
                module=module,
                operator=operator,
                direction=direction,
                calls=tally.calls,
                macs=tally.macs,
                flops=tally.flops,
                moved_bytes=tally.moved_bytes,
                formula=tally.formula,
                torch_flops=tally.torch_flops,
            )
            for (module, operator, direction), tally in self._tallies.items()
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        formula = formula_for(func) or self._own.get(func._schema.name)
        if formula is None:
            with self:  # a composite operator that inference mode left whole
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        module = self._where()
        name = func._schema.name.partition("::")[2]
        call = Call(name, _arguments(func, args, kwargs), result, tuple(_tensors(result)))
        key = (module, str(func.overloadpacket), self.direction)
        tally = self._tallies.setdefault(key, _Tally(formula.says if formula else None))
        work = self._work(formula, call)
        if work is None:
            tally.formula = None
        moved = moved_bytes(func, call.arguments, call.outputs)
        tally.add(work or Work(), moved, _torch_flops(func, args, kwargs, result))
        return result

    def _work(self, formula: Formula | None, call: Call) -> Work | None:
        """The work of a call, or None if it cannot be told: no formula, or an overload the formula does not fit."""
        if formula is None:
            return None
        if not call.outputs and not formula.is_own:
            return Work()
        try:
            return formula.count(call)
        except Exception as error:  # reported as an uncounted operator, which beats no reading at all
            if formula.is_own:  # to be raised when the module is done: on the way through it may be caught or renamed
                self.failure = self.failure or error
            return None

    def _leave(self) -> None:
        self._inside.pop()

    def _where(self) -> str:
        """The module an operator belongs to.

        In forward that is the innermost that is running. Backward runs when none is, and what is known there is the
        node of the graph that is being worked off. Nodes are numbered as they are made, one after another, so it is
        enough to keep a sorted list of where each stretch of numbers began and in which module: the last beginning at
        or below a node's number tells the module that made it.
        """
        if self._inside:
            module = self._inside[-1]
            # The autograd node of this operator, if it got one, is the newest: its number is one below the next.
            # Without one the newest belongs to an operator before, whose stretch has begun already.
            newest = torch.autograd._get_sequence_nr() - 1  # type: ignore[attr-defined]
            if not self._numbers or newest > self._numbers[-1]:
                self._numbers.append(newest)
                self._modules.append(module)
            return module
        node: Any = torch._C._current_autograd_node()
        if node is None:
            return ""
        # Nodes that add to a parameter's gradient are numbered apart, above all others: they go by the parameter.
        variable = getattr(node, "variable", None)
        if variable is not None:
            return self._owner.get(id(variable), "")
        place = bisect.bisect_right(self._numbers, node._sequence_nr()) - 1
        return self._modules[place] if place >= 0 else ""


def _arguments(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The call's arguments by name, in the order of the schema, defaults filled in."""
    schema = func._schema.arguments
    found = {a.name: a.default_value for a in schema if a.has_default_value()}
    found |= {a.name: value for a, value in zip(schema, args, strict=False)}
    found |= kwargs
    return {a.name: found[a.name] for a in schema if a.name in found}


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))


def _torch_flops(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> int:
    """What torch's own counter says of this call; 0 where it knows no formula or its formula fails."""
    count = flop_registry.get(func.overloadpacket)
    if count is None:
        return 0
    try:
        return int(count(*args, **kwargs, out_val=result))
    except Exception:  # its formulas take batched inputs only, for example
        return 0
