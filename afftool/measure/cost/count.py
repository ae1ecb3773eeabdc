"""What a case costs, counted and not timed: parameters, multiply-adds, FLOPs, bytes.

A fresh build (or a copy) runs once on the meta device, where tensors have shapes but no memory, while every
operator is watched. The module itself, its buffers, the random state and a later compilation see nothing of it. A
module that looks at values cannot run there; it is counted on a real copy on the CPU instead. Which parameters a
gradient can reach is found from the autograd graph, so no value is needed.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from afftool.build import build_case, build_on_meta
from afftool.copying import meta_copy, real_copy
from afftool.errors import AfftoolError, LoadError
from afftool.inputs import as_in_network, versions, written_since
from afftool.measure.cost.counter import Counter
from afftool.measure.cost.reach import reach
from afftool.measure.cost.reading import CostReading, OperatorCost, Part, Reach, Totals
from afftool.room import check_room, least_of_case
from afftool.spec import MODULE, CaseSpec, Mode

T = TypeVar("T")
Copy = tuple[nn.Module, tuple[Any, ...]]


def count(spec: CaseSpec) -> CostReading:
    """Count one forward pass of the case and, in train mode, the backward pass after it.

    In train mode the bare fusion's inputs get gradients, as inside a network; a host's image does not. Raises the
    errors of `build_case`, `LoadError` if the module runs neither on the meta device nor on the CPU, and `TooLarge` if
    it needs the CPU and cannot fit there.
    """
    return _count(
        _fresh(spec),
        mode=spec.mode,
        input_gradients=spec.host == MODULE,
        what=str(spec.fusion),
        hint_on=spec.fusion.hint_on,
    )


def reached(spec: CaseSpec) -> Reach:
    """What a gradient reaches where the case is trained, and nothing else. Raises as `count`."""

    def look(device: Literal["meta", "cpu"], fresh: Callable[[str], Copy]) -> Reach:
        return _reached(device, fresh)[1]

    return _on_meta_or_cpu(_fresh(spec), look, what=str(spec.fusion), hint_on=spec.fusion.hint_on)


def count_module(
    module: nn.Module, inputs: Sequence[Any], *, mode: Mode = "infer", input_gradients: bool = True
) -> CostReading:
    """Count a module that is already built, on `inputs` as its forward takes them; neither is touched.

    `mode` train counts the backward pass too, with gradients for floating point inputs if `input_gradients`.
    Raises `LoadError` if the module runs neither on the meta device nor on the CPU.
    """
    original = getattr(module, "_orig_mod", module)  # what torch.compile wraps

    def fresh(device: str) -> Copy:
        twin = meta_copy(original) if device == "meta" else real_copy(original).to(device)
        moved = tree_map(lambda x: x.detach().to(device) if isinstance(x, torch.Tensor) else x, tuple(inputs))
        return twin.train(mode == "train"), moved

    return _count(fresh, mode=mode, input_gradients=input_gradients, what=type(original).__name__)


def _fresh(spec: CaseSpec) -> Callable[[str], Copy]:
    def fresh(device: str) -> Copy:
        if device == "meta":
            case = build_on_meta(spec)
        else:
            check_room(least_of_case(spec), device, what=f"{spec.fusion}, counted on real tensors,")
            case = build_case(dataclasses.replace(spec, device=device))
        return case.module, case.inputs

    return fresh


def _count(
    fresh: Callable[[str], Copy],
    *,
    mode: Mode,
    input_gradients: bool,
    what: str,
    hint_on: Callable[[str], str | None] = lambda failure: None,
) -> CostReading:
    def look(device: Literal["meta", "cpu"], fresh: Callable[[str], Copy]) -> CostReading:
        return _count_on(device, fresh, mode, input_gradients)

    return _on_meta_or_cpu(fresh, look, what=what, hint_on=hint_on)


def _on_meta_or_cpu(
    fresh: Callable[[str], Copy],
    look: Callable[[Literal["meta", "cpu"], Callable[[str], Copy]], T],
    *,
    what: str,
    hint_on: Callable[[str], str | None],
) -> T:
    with _undisturbed():
        try:
            return look("meta", fresh)
        except AfftoolError:
            raise
        except (Exception, SystemExit):
            # It may need values, which only a real copy has. What fails there too is the module's own error.
            try:
                return look("cpu", fresh)
            except AfftoolError:
                raise
            except (Exception, SystemExit) as error:
                raise LoadError(
                    f"{what} cannot be counted, its forward fails: {type(error).__name__}: {error}",
                    hint=hint_on(str(error)) or "call it on inputs of these shapes yourself to see the whole traceback",
                ) from error


def _count_on(
    device: Literal["meta", "cpu"], fresh: Callable[[str], Copy], mode: Mode, input_gradients: bool
) -> CostReading:
    live, reached, written = _reached(device, fresh)
    module, inputs = fresh(device)
    with _as_written():
        rows = _watched(module, inputs, mode, input_gradients, written)
    return _reading(module, rows, live, reached, mode, device)


def _watched(
    module: nn.Module, inputs: tuple[Any, ...], mode: Mode, input_gradients: bool, written: set[int]
) -> tuple[OperatorCost, ...]:
    """The operators of one pass; the inputs `written` into are no leaves in training."""
    counter = Counter()
    if mode == "train":
        wanted = [x for x in tree_leaves(inputs) if _is_float(x)] if input_gradients else []
        for x in wanted:
            x.requires_grad_()
        if written:
            each, structure = tree_flatten(inputs)
            taken = {number for number in written if any(each[number] is x for x in wanted)}
            given = [_as_in_network(x, counter) if number in taken else x for number, x in enumerate(each)]
            inputs = tree_unflatten(given, structure)
        with counter.watch(module), torch.enable_grad():
            with counter:
                outputs = module(*inputs)
            leaves = [x for x in tree_leaves(outputs) if isinstance(x, torch.Tensor) and x.requires_grad]
            gradients = [torch.ones_like(leaf) for leaf in leaves]
            counter.direction = "backward"
            if leaves:
                with counter:
                    torch.autograd.backward(leaves, gradients)
    else:
        with counter.watch(module), torch.no_grad(), counter:
            module(*inputs)
    if counter.failure:
        raise counter.failure
    return counter.rows()


def _as_in_network(leaf: torch.Tensor, counter: Counter) -> torch.Tensor:
    """`leaf` as a module may write into it; the way of its gradient from there on is no part of the module."""
    given = as_in_network(leaf)
    node: Any = given.grad_fn
    node.register_prehook(lambda _gradients: counter.pause(True))
    node.register_hook(lambda _inputs, _outputs: counter.pause(False))
    return given


def _reached(device: str, fresh: Callable[[str], Copy]) -> tuple[frozenset[str], Reach, set[int]]:
    """Parameters that a gradient reaches in eval mode, in training mode, or in both; all it reaches in training; and
    the inputs written into.

    Those go by their numbers among the leaves. What is written past autograd, through `.data`, does not matter here.
    """
    module, inputs = fresh(device)
    doubled = tree_map(_doubled, inputs)
    with _as_written():
        # Without a gradient of the inputs first: there are operators (`out=`) that run so alone.
        before = versions(tree_leaves(inputs))
        found = reach(module.eval(), inputs, input_gradients=False)
        live, written = found.parameters, written_since(before, tree_leaves(inputs))
        for input_gradients in (False, True):
            given = tree_map(_copied, doubled)
            before = versions(tree_leaves(given))
            try:
                found = reach(module.train(), given, input_gradients=input_gradients)
            except (Exception, SystemExit):  # a module that cannot train on this input can be reached in eval at most
                break
            live |= found.parameters
            written |= written_since(before, tree_leaves(given))
    return live, found, written


def _copied(x: Any) -> Any:
    return x.clone() if isinstance(x, torch.Tensor) else x


def _as_written() -> AbstractContextManager[None]:
    """A scripted module runs its operators one by one, whatever its compiler has learnt from runs before.

    Only while it runs: freezing one, as a factory may, needs the compiler.
    """
    return torch.jit.optimized_execution(False)  # type: ignore[attr-defined]


def _doubled(x: Any) -> Any:
    """The input with its batch twice, so that batch norm over one position has two values to see."""
    return torch.cat([x, x]) if isinstance(x, torch.Tensor) and x.dim() else x


def _reading(
    module: nn.Module,
    rows: tuple[OperatorCost, ...],
    live_names: frozenset[str],
    reached: Reach,
    mode: Mode,
    device: Literal["meta", "cpu"],
) -> CostReading:
    forward = Totals.of(row for row in rows if row.direction == "forward")
    backward = Totals.of(row for row in rows if row.direction == "backward") if mode == "train" else None
    uncounted: dict[str, int] = {}
    for row in rows:
        if row.formula is None:
            uncounted[row.operator] = uncounted.get(row.operator, 0) + row.calls
    parameters = dict(module.named_parameters())
    live = {id(parameters[name]) for name in live_names}
    parts = tuple(
        Part(
            path=path,
            kind=type(part).__name__,
            params=sum(p.numel() for p in part.parameters()),
            live_params=sum(p.numel() for p in part.parameters() if id(p) in live),
        )
        for path, part in module.named_modules()
    )
    return CostReading(
        params=parts[0].params,
        live_params=parts[0].live_params,
        macs=forward.macs,
        flops=forward.flops,
        moved_bytes=forward.moved_bytes,
        uncounted_ops=uncounted,
        backward_macs=backward.macs if backward else None,
        backward_flops=backward.flops if backward else None,
        backward_moved_bytes=backward.moved_bytes if backward else None,
        rows=rows,
        parts=parts,
        dead_params=tuple(name for name in parameters if name not in live_names),
        reached=reached,
        counted_on=device,
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Whatever the module draws or compiles, the caller's random state and compiler see nothing of it.

    Attention is counted by the products it is made of: the fused path of `nn.MultiheadAttention` has no meta kernel.
    """
    python_state = random.getstate()
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        random.setstate(python_state)


def _is_float(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()
