"""A network's graph, one a mode, from `torch.export` without Dynamo: what it does for an input, operator by operator.

An exported module refuses `train` and `eval`, and guards the sizes that it was made with. So the graph alone is taken
here, and what it says of sizes is kept as a check of its own; `network.py` gives the graph back to the network.
"""

from __future__ import annotations

import copy
import inspect
import io
import logging
import os
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, Literal

import torch
from torch import nn
from torch.fx.proxy import TracerBase
from torch.utils._pytree import TreeSpec

from afftool.copying import sharing_copy
from afftool.errors import LoadError
from afftool.graft import lost, own_gradients
from afftool.graft.torch_version import lacking

Mode = Literal["eval", "train"]


def mode_of(training: bool) -> Mode:
    """The mode of a network that is trained, or not."""
    return "train" if training else "eval"


LEAST_BATCH = 2
"""A batch of one is traced as two: `torch.export` takes an extent of 1 for one that never changes."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True, eq=False)
class Trace:
    """What a network computes in one mode, as a graph that takes its inputs flat and gives its outputs flat.

    `fits(*flat inputs)` raises `AssertionError` for sizes that the graph does not hold for; `free` are the dimensions
    of each input that may vary, `shapes` those it was made with. `training` are the modes of the network's parts;
    `taken` and `given` the structures of its arguments and its output. `constants` are what the graph reads by name and
    the network does not have.
    """

    mode: Mode
    graph: torch.fx.Graph
    constants: Mapping[str, torch.Tensor | nn.Module]
    fits: Callable[..., None] | None
    free: tuple[tuple[int, ...], ...]
    shapes: tuple[tuple[int, ...], ...]
    device: torch.device
    training: tuple[bool, ...]
    taken: TreeSpec
    given: TreeSpec

    def holds_for(self, change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> bool:
        """Whether it holds for inputs of the shapes that `change` gives for those it was made with."""
        try:
            if self.fits is not None:
                self.fits(*(torch.empty(change(shape), device="meta") for shape in self.shapes))
        except Exception:
            return False
        return True


def trace(net: nn.Module, inputs: Sequence[torch.Tensor], mode: Mode) -> Trace:
    """The graph of `net` in this mode for `inputs`, with batch and sizes free where it allows them to be.

    The network is only read: a copy that shares its tensors is traced. Raises `LoadError` with the operator and the
    line for what `torch.export` cannot follow.
    """
    lost.check_parts(net)
    given = tuple(_at_least_two(x) for x in inputs)
    failed: Exception | SystemExit | None = None
    for free in (_every_size, _batch_alone, _nothing):
        twin = _twin(net).train(mode == "train")
        try:
            with (
                _quiet(),
                _every_line(),
                _without_hooks(twin),
                lost.every_gradient(net),
                lost.no_inference(net),
                lost.one_course(net),
                own_gradients.kept() as kinds,
                torch.enable_grad(),
                torch.inference_mode(False),
            ):
                sizes = _freed(twin, given, free)
                with lost.counted(twin) as moved:
                    program = torch.export.export(twin, given, dynamic_shapes=sizes, strict=False)
                if moved:
                    lost.check_next(net, twin, program, moved, given, sizes)
            module = program.module()
            own_gradients.restore(module, kinds)
            return _of(net, twin, module, mode, given)
        except LoadError:
            raise
        except (Exception, SystemExit) as error:
            failed = error  # the last, where no size is free, is the plainest
    assert failed is not None
    _check_runs(net, given, mode)
    raise _refusal(net, failed) from failed


def _of(
    net: nn.Module, twin: nn.Module, module: torch.fx.GraphModule, mode: Mode, inputs: tuple[torch.Tensor, ...]
) -> Trace:
    try:
        info = module.graph._codegen.pytree_info  # type: ignore[attr-defined]
    except AttributeError as error:
        raise lacking(error) from error
    graph, constants, fits = torch.fx.Graph(), {}, None
    for node in list(module.graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            fits = attrgetter("_guards_fn")(module)
            module.graph.erase_node(node)
        elif node.op == "get_attr" and not _has(net, node.target):
            name = f"_{mode}_{node.target.replace('.', '_')}"
            constants[name] = attrgetter(node.target)(module)
            node.target = name
    graph.output(graph.graph_copy(module.graph, {}))  # one that does not keep the network, which the module holds
    placed = [node.meta["val"].shape for node in graph.nodes if node.op == "placeholder"]
    return Trace(
        mode=mode,
        graph=graph,
        constants=constants,
        fits=fits,
        free=tuple(tuple(d for d, extent in enumerate(shape) if not isinstance(extent, int)) for shape in placed),
        shapes=tuple(tuple(x.shape) for x in inputs),
        device=inputs[0].device,
        training=tuple(part.training for part in twin.modules()),
        taken=info.in_spec,
        given=info.out_spec,
    )


def _has(net: nn.Module, path: str) -> bool:
    try:
        attrgetter(path)(net)
    except AttributeError:
        return False
    return True


def _freed(net: nn.Module, inputs: tuple[torch.Tensor, ...], free: Callable[[torch.Tensor], Any]) -> tuple[Any, ...]:
    """What may vary of each input, in the structure of the forward's signature."""
    kinds = [parameter.kind for parameter in inspect.signature(net.forward).parameters.values()]
    each = tuple(map(free, inputs))
    many = inspect.Parameter.VAR_POSITIONAL
    first = kinds.index(many) if many in kinds else len(each)
    return (*each[:first], each[first:]) if len(each) > first else each


def _every_size(x: torch.Tensor) -> dict[int, Any]:
    return {d: torch.export.Dim.AUTO for d in range(x.dim()) if d != 1}


def _batch_alone(_: torch.Tensor) -> dict[int, Any]:
    return {0: torch.export.Dim.AUTO}


def _nothing(_: torch.Tensor) -> None:
    return None


def _at_least_two(x: torch.Tensor) -> torch.Tensor:
    return x if len(x) >= LEAST_BATCH else x.expand(LEAST_BATCH, *x.shape[1:]).contiguous()


def _twin(net: nn.Module) -> nn.Module:
    """A copy with the same tensors, since a forward may keep what it works out; the network itself if none can be."""
    try:
        return sharing_copy(net)
    except Exception:
        return net


@contextmanager
def _without_hooks(net: nn.Module) -> Iterator[None]:
    """The network's own hooks stay where they are, around the graph: in it too, they would run twice."""
    kept = {name: vars(net)[name] for name in _HOOKS}
    vars(net).update({name: OrderedDict() for name in _HOOKS})
    try:
        yield
    finally:
        vars(net).update(kept)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the network warns of is told when it is built and run; the words of the exporter are nobody's."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # it prints the graph of what it cannot follow
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _every_line() -> Iterator[None]:
    """The exporter notes lines of functions called `forward` alone, and a network may add in a helper of its own."""
    own = vars(TracerBase).get("_filter_traceback_frames")
    if own is None:
        yield
        return

    def kept(_tracer: TracerBase, stack: traceback.StackSummary) -> traceback.StackSummary:
        start = next((number for number, frame in enumerate(stack) if frame.name == "forward"), len(stack))
        return traceback.StackSummary.from_list(
            frame
            for frame in stack[start:]
            if frame.name == "forward" or not frame.filename.startswith(("<", *_ours_and_torchs()))
        )

    TracerBase._filter_traceback_frames = kept  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        TracerBase._filter_traceback_frames = own  # type: ignore[method-assign]


def size_of(extent: int | torch.SymInt) -> int:
    """An extent as it was traced, free ones too; 0 for one that depends on the values of a tensor."""
    return extent if isinstance(extent, int) else int(extent.node.hint or 0)


def _check_runs(net: nn.Module, given: tuple[torch.Tensor, ...], mode: Mode) -> None:
    """Refuse a network that fails without being traced too. Raises `LoadError`."""
    try:
        twin = copy.deepcopy(net)  # its buffers may change, which are not the network's
    except Exception:
        return
    try:
        with _quiet(), torch.random.fork_rng(devices=[]), torch.no_grad():
            twin.train(mode == "train")(*given)
    except (Exception, SystemExit) as error:
        raise does_not_run(net, given, error) from error


def does_not_run(net: nn.Module, inputs: Sequence[torch.Tensor], error: BaseException) -> LoadError:
    """The error for a network that cannot be called with these inputs."""
    shapes = " and ".join(str(tuple(x.shape)) for x in inputs)
    line, _ = _where(error)
    return LoadError(
        f"{type(net).__name__} does not run on {shapes}: {type(error).__name__}: {error}"
        f"{f' (at {line})' if line else ''}",
        hint="--size and --inputs tell the shapes it takes",
    )


def _refusal(net: nn.Module, error: BaseException) -> LoadError:
    """What could not be exported: the operator, the line of the user's, and what to do."""
    name = type(net).__name__
    line, operator = _where(error)
    said = next((text for text in str(error).splitlines() if text.strip()), "").strip()
    at = f" at {line}" if line else ""
    by = f" ({operator})" if operator else ""
    return LoadError(
        f"{name} cannot be exported: it stops{at}{by}: {type(error).__name__}: {said[:300]}",
        hint="what depends on the values of a tensor has no graph; name the part of it that has one, for example "
        "--inside backbone (a submodule by its path), and the rest stays as it is",
    )


def _where(error: BaseException) -> tuple[str | None, str | None]:
    """The innermost line that is not torch's, and the last operator of torch's on the way to the error."""
    line = operator = None
    frames = traceback.walk_tb(error.__traceback__)
    for frame, number in frames:
        file = frame.f_code.co_filename
        if not file.startswith(_ours_and_torchs()) and not file.startswith("<"):
            code = traceback.extract_stack(frame, limit=1)[0].line
            line = f"{os.path.basename(file)}:{number}" + (f" `{code}`" if code else "")
        found = frame.f_locals.get("func")
        if isinstance(found, torch._ops.OpOverload):
            operator = str(found)
    return line, operator


@cache
def _ours_and_torchs() -> tuple[str, ...]:
    here = os.path.dirname(os.path.dirname(__file__))
    return tuple(folder + os.sep for folder in (os.path.dirname(torch.__file__), here))
