"""What was counted, as plain values: totals, rows an operator and module, and the tree of modules. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["forward", "backward"]


@dataclass(frozen=True, kw_only=True)
class OperatorCost:
    """All calls of one operator in one module (a dotted path, "" for the whole) in one direction.

    `formula` says how it was counted, and is None where nothing is known about the operator: then `macs` and
    `flops` are 0 because they are missing, and the operator is listed in `uncounted_ops`. `torch_flops` is
    what `torch.utils.flop_counter` says of the same calls.
    """

    module: str
    operator: str
    direction: Direction
    calls: int
    macs: int
    flops: int
    moved_bytes: int
    formula: str | None
    torch_flops: int


@dataclass(frozen=True, kw_only=True)
class Part:
    """One module of the tree: its path, its class, and the parameters it and its children hold."""

    path: str
    kind: str
    params: int
    live_params: int


CUT_BY = "Look for .detach(), .data, .item(), torch.no_grad() or a new torch.tensor(...) in forward."


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a gradient reaches in training: `parameters` of those that are `trainable` (frozen ones are not), and which
    of the `inputs`. `connected` is false where no output hangs on anything."""

    parameters: frozenset[str] = frozenset()
    trainable: frozenset[str] = frozenset()
    inputs: tuple[bool, ...] = ()
    connected: bool = True

    def cut(self, *, input_gradients: bool = True) -> str | None:
        """Why nothing can be trained through it; None if something can. A host's images want no gradient."""
        if self.parameters or (input_gradients and any(self.inputs)):
            return None
        if not self.trainable and not input_gradients:
            return "no gradient passes: all of its parameters are frozen, so there is nothing to train"
        none_of = none_get_one(parameters=bool(self.trainable), inputs=input_gradients)
        how = "its output is cut from autograd" if not self.connected else "its output hangs on something else"
        return f"no gradient passes: {how}, and {none_of}"

    @property
    def ignored_inputs(self) -> str | None:
        """The inputs that no gradient reaches, where it reaches others: `y`, `y and input 3`; None for none."""
        names = [name for name, got in zip(input_names(len(self.inputs)), self.inputs, strict=True) if not got]
        return " and ".join(names) if names and len(names) < len(self.inputs) else None

    @property
    def ignored_parameters(self) -> str | None:
        """How many of the parameters that are to be trained no gradient reaches, and the first; None for none."""
        dead = sorted(self.trainable - self.parameters)
        return f"{len(dead)} of {len(self.trainable)} parameters, {dead[0]} among them" if dead else None


def none_get_one(*, parameters: bool, inputs: bool) -> str:
    """That no gradient reaches the parameters and the inputs, where there are any."""
    if parameters and inputs:
        return "neither its parameters nor its inputs get one"
    return f"none of its {'parameters' if parameters else 'inputs'} get one"


def input_names(count: int) -> list[str]:
    """What the inputs of a fusion are called: x, y, input 3, ..."""
    return ["x", "y", *(f"input {i + 1}" for i in range(2, count))][:count]


@dataclass(frozen=True, kw_only=True)
class Totals:
    """A sum over rows; bytes are those of the operators, each counted alone."""

    macs: int = 0
    flops: int = 0
    moved_bytes: int = 0
    calls: int = 0

    @classmethod
    def of(cls, rows: Iterable[OperatorCost]) -> Totals:
        """The sum of `rows`."""
        listed = list(rows)
        return cls(
            macs=sum(row.macs for row in listed),
            flops=sum(row.flops for row in listed),
            moved_bytes=sum(row.moved_bytes for row in listed),
            calls=sum(row.calls for row in listed),
        )


@dataclass(frozen=True, kw_only=True)
class ModuleCost:
    """One line of the module tree: `depth` 0 is the whole, and the sums include everything below."""

    path: str
    kind: str
    depth: int
    params: int
    live_params: int
    forward: Totals
    backward: Totals | None


@dataclass(frozen=True, kw_only=True)
class CostReading:
    """What one forward pass costs, and in train mode its backward pass besides.

    `flops` are 2 a multiply-add plus bias, elementwise, pooling, normalisation and activation work; `moved_bytes`
    are the least bytes every operator must move, summed; `uncounted_ops` names the operators without a formula and
    their calls, both directions together. `live_params` are the parameters a gradient can reach. The
    `backward_*` fields are None where there was no backward pass. `counted_on` is meta, or cpu for a module that
    needs values to run. `reached` is what a gradient reaches where it is trained.
    """

    params: int
    live_params: int
    macs: int
    flops: int
    moved_bytes: int
    uncounted_ops: Mapping[str, int]
    backward_macs: int | None = None
    backward_flops: int | None = None
    backward_moved_bytes: int | None = None
    rows: tuple[OperatorCost, ...] = field(default=(), repr=False)
    parts: tuple[Part, ...] = field(default=(), repr=False)
    dead_params: tuple[str, ...] = ()
    counted_on: Literal["meta", "cpu"] = "meta"
    reached: Reach = field(default_factory=Reach, repr=False)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a record that this reading fills."""
        return {
            "params": self.params,
            "live_params": self.live_params,
            "macs": self.macs,
            "flops": self.flops,
            "moved_bytes": self.moved_bytes,
            "uncounted_ops": dict(self.uncounted_ops),
            "backward_macs": self.backward_macs,
            "backward_flops": self.backward_flops,
            "backward_moved_bytes": self.backward_moved_bytes,
            "launched_ops": sum(row.calls for row in self.rows if row.moved_bytes),
        }

    @property
    def per_module(self) -> tuple[ModuleCost, ...]:
        """The tree of modules, each with the sums of everything it runs, in the order of definition."""
        return tuple(self._branch(part) for part in self.parts)

    @property
    def per_operator(self) -> tuple[OperatorCost, ...]:
        """One row an operator and direction, over all modules; their sums are the totals.

        One that was not counted everywhere has no formula, for its sum lacks something.
        """
        merged: dict[tuple[Direction, str], list[OperatorCost]] = {}
        for row in self.rows:
            merged.setdefault((row.direction, row.operator), []).append(row)
        return tuple(
            OperatorCost(
                module="",
                operator=operator,
                direction=direction,
                calls=sum(r.calls for r in rows),
                macs=sum(r.macs for r in rows),
                flops=sum(r.flops for r in rows),
                moved_bytes=sum(r.moved_bytes for r in rows),
                formula=None if any(r.formula is None for r in rows) else rows[0].formula,
                torch_flops=sum(r.torch_flops for r in rows),
            )
            for (direction, operator), rows in merged.items()
        )

    def _branch(self, part: Part) -> ModuleCost:
        below = list(self._rows_below(part.path))
        backward = [row for row in below if row.direction == "backward"]
        return ModuleCost(
            path=part.path,
            kind=part.kind,
            depth=part.path.count(".") + 1 if part.path else 0,
            params=part.params,
            live_params=part.live_params,
            forward=Totals.of(row for row in below if row.direction == "forward"),
            backward=None if self.backward_macs is None else Totals.of(backward),
        )

    def _rows_below(self, path: str) -> Iterator[OperatorCost]:
        for row in self.rows:
            if not path or row.module == path or row.module.startswith(path + "."):
                yield row


@dataclass(frozen=True, kw_only=True)
class Explained(OperatorCost):
    """One operator in one direction, over all modules, and what the other counters say of the same calls.

    None means that fvcore has no say: it is not installed, could not trace the module, or never looks at a backward
    pass. 0 means that it counts the operator as nothing.
    """

    fvcore_flops: int | None

    @property
    def mac_only(self) -> int:
        """What a counter of multiply-adds alone says."""
        return self.macs

    @property
    def fields(self) -> dict[str, Any]:
        """A row of the JSON document."""
        return {
            "operator": self.operator,
            "direction": self.direction,
            "calls": self.calls,
            "macs": self.macs,
            "flops": self.flops,
            "moved_bytes": self.moved_bytes,
            "formula": self.formula,
            "fvcore_flops": self.fvcore_flops,
            "torch_flops": self.torch_flops,
            "mac_only": self.mac_only,
        }


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The rows, whose sums are the totals of `reading`, and what there is to know about the other counters."""

    reading: CostReading
    rows: tuple[Explained, ...]
    notes: tuple[str, ...] = ()


def formula_wanted(operators: Iterable[str]) -> str:
    """How the user has these operators counted, each named as `uncounted_ops` names it (`mylib.op`)."""
    entries = ", ".join(f'"{operator.replace(".", "::", 1)}" = "pkg.mod:function"' for operator in sorted(operators))
    return (
        f"To have it counted, write {entries} below [formulas] in afftool.toml (or below [tool.afftool.formulas] in "
        "pyproject.toml) of the directory you run in; function(inputs, output) gets meta tensors and returns two whole "
        "numbers, (macs, other_flops): `return 0, 3 * output.numel()` is 3 per element."
    )
