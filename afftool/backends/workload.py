"""A backend's own copy of a case, and what a step of it does: forward, or forward, backward and optimizer.

The training step is kept neutral. The gradient that flows in at the output is a fixed random tensor, as dense as the
one a network would send, so no loss function is timed. The optimizer is SGD with momentum and a learning rate of
zero: it does all of its work and the weights stay what they are, so the thousandth step is the first one again. The
bare fusion's inputs get gradients too, as they would inside a network; a host's images do not.

An input that the module writes into is put back before each step, and in training handed on as no leaf.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from afftool.backends import run_restored
from afftool.backends.outputs import Outputs, uses_tf32
from afftool.build import Case, copy_of
from afftool.errors import Rejected
from afftool.inputs import as_in_network
from afftool.spec import MODULE

SPACER_BYTES = 2**20
"""Data moves by up to a MiB more than its own size: past every distance at which caches and pages repeat."""
OWN_INPUTS = 0
"""The seed that leaves a case's inputs as they are."""
ALIGNMENT = 64
SPACER_OBJECTS = 3000
OBJECT_BYTES = 512
"""Python's allocator keeps pools of objects up to this size."""


class Workload:
    """One case's own module and inputs; `forward(*inputs)` runs it, as it is or compiled.

    `dtype` overrides the case's. The case itself is only read.
    """

    def __init__(self, case: Case, *, dtype: torch.dtype | None = None) -> None:
        self._case = case
        self._dtype = dtype
        self.training = case.spec.mode == "train"
        self._written = tuple(case.written)
        self._spacers: tuple[Any, ...] = ()
        self._distances = random.Random()
        self._copy_case()

    def _copy_case(self) -> None:
        case, dtype = self._case, self._dtype
        self.module: nn.Module = copy_of(case)
        if dtype:
            self.module = self.module.to(dtype)
        needs_gradient = self.training and case.spec.host == MODULE
        self.inputs = tuple(
            x.detach().to(dtype or x.dtype, copy=True).requires_grad_(needs_gradient) for x in case.inputs
        )
        self.forward: Callable[..., Any] = self.module
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9) if self.training and parameters else None
        self.leaves: list[torch.Tensor] = []
        """The differentiable output of the last `run_forward`, until `run_backward` takes it."""
        self.cotangents: list[torch.Tensor] = []
        """The gradients that flow in at the outputs, made in the first `run_backward`."""

    @property
    def parts(self) -> Mapping[str, Callable[[], None]]:
        """The callables a training step consists of, in order; empty for inference."""
        if not self.training:
            return {}
        parts = {"forward": self.run_forward, "backward": self.run_backward}
        return parts | ({"optimizer": self.run_optimizer} if self.optimizer else {})

    def mode(self) -> AbstractContextManager[Any]:
        """What a step runs in: inference mode, or nothing particular in training."""
        return nullcontext() if self.training else torch.inference_mode()

    def run(self, times: int) -> None:
        """Make `times` steps."""
        with self.mode():
            run_restored(self.repeat, self.restoring, times)

    def repeat(self, times: int) -> None:
        """Make `times` steps where the caller has entered `mode`, with next to nothing around them."""
        if self.training:
            for _ in itertools.repeat(None, times):
                self.run_forward()
                self.run_backward()
                if self.optimizer:
                    self.optimizer.step()
            return
        forward, inputs = self.forward, self.inputs
        for _ in itertools.repeat(None, times):
            forward(*inputs)

    def run_forward(self) -> None:
        """Forget the last step's gradients and run forward, keeping the output for `run_backward`."""
        self.forget_gradients()
        inputs = self.inputs
        if self._written:
            inputs = tuple(
                as_in_network(x) if place in self._written and x.requires_grad else x for place, x in enumerate(inputs)
            )
        self.leaves = _differentiable(self.forward(*inputs))

    @property
    def restoring(self) -> Callable[[], None] | None:
        """What puts back the inputs that the module writes into; None where it writes into none."""
        return self._restore_written if self._written else None

    @torch.no_grad()
    def _restore_written(self) -> None:
        for place in self._written:
            _put_back(self.inputs[place], self._case.inputs[place])

    def copies_of_inputs(self, number: int) -> list[tuple[torch.Tensor, ...]]:
        """So many further sets of the case's inputs, to become `inputs` where none can be put back between steps."""
        self.restore()
        return [tuple(x.detach().clone().requires_grad_(x.requires_grad) for x in self.inputs) for _ in range(number)]

    def forget_gradients(self) -> None:
        """Set every gradient to None, so that backward writes instead of adding."""
        for x in self.inputs:
            x.grad = None
        if self.optimizer:
            self.optimizer.zero_grad(set_to_none=True)

    def run_backward(self) -> None:
        """Run backward from the last output, which it lets go of."""
        leaves, self.leaves = self.leaves, []
        if not leaves:
            raise Rejected("no gradient passes: its output is cut from autograd")
        if len(self.cotangents) != len(leaves):
            self.cotangents = _cotangents(leaves)
        torch.autograd.backward(leaves, self.cotangents)

    def run_optimizer(self) -> None:
        """Run the optimizer step, if there are parameters."""
        if self.optimizer:
            self.optimizer.step()

    def outputs(self, seed: int) -> Outputs:
        """What one step from the case's initial state leaves behind, before the optimizer. Gradients are forgotten.

        Each seed has random numbers of its own, and `OWN_INPUTS` the case's inputs; others have them mixed.
        """
        self.restore(seed)
        torch.manual_seed(seed)
        if not self.training:
            with self.mode():
                found = self.forward(*self.inputs)
            return self.collect(tree_leaves(found))
        self.run_forward()
        kept = [leaf.detach() for leaf in self.leaves]
        self.run_backward()
        return self.collect(kept)

    def collect(self, leaves: list[Any]) -> Outputs:
        """Copies of the `leaves` of an output and of everything the step left in the module and the inputs."""
        return Outputs(
            {
                "output": _copies((str(i), leaf) for i, leaf in enumerate(leaves)),
                "input gradient": _copies((str(i), x.grad) for i, x in enumerate(self.inputs)),
                "parameter gradient": _copies((name, p.grad) for name, p in self.module.named_parameters()),
                "buffer": _copies(self.module.named_buffers()),
            }
            | ({"written input": _copies((str(i), self.inputs[i]) for i in self._written)} if self._written else {}),
            tf32=any(uses_tf32(x.device) for x in self.inputs),
        )

    @torch.no_grad()
    def restore(self, seed: int = OWN_INPUTS) -> None:
        """Put weights, buffers and inputs back to the case's, in place; the inputs as `seed` has them mixed."""
        for own, given in (
            *zip(self.module.parameters(), self._case.module.parameters(), strict=True),
            *zip(self.module.buffers(), self._case.module.buffers(), strict=True),
            *zip(self.inputs, _mixed(self._case.inputs, seed), strict=True),
        ):
            _put_back(own, given)

    def move(self) -> bool:
        """Become another copy of the case elsewhere in memory, by random distances; on the CPU only. Whether it did.

        What a step allocates moves along, since the spacers before the copy shift what is free. Python's own objects
        move too: where those of a small module lie can be worth half a percent of its time. A GPU's allocator puts
        tensors at fixed distances.
        """
        if self._on_cpu:
            spacers = (self._bytes_apart(), self._objects_apart())
            self._copy_case()
            self._spacers = spacers  # the last ones go only now, or the copy could land where they were
        return self._on_cpu

    @torch.no_grad()
    def move_tensors(self) -> bool:
        """Like `move`, where compiled code holds on to the module: weights, buffers and inputs alone."""
        if self._on_cpu:
            spacers = (self._bytes_apart(),)
            for tensor in (*self.module.parameters(), *self.module.buffers(), *self.inputs):
                tensor.data = tensor.data.clone()
            self._spacers = spacers
        return self._on_cpu

    @property
    def _on_cpu(self) -> bool:
        return all(x.device.type == "cpu" for x in self.inputs)

    def _bytes_apart(self) -> torch.Tensor:
        return torch.empty(ALIGNMENT * self._distances.randrange(SPACER_BYTES // ALIGNMENT), dtype=torch.uint8)

    def _objects_apart(self) -> list[bytes]:
        draw = self._distances.randrange
        return [bytes(draw(OBJECT_BYTES)) for _ in range(draw(SPACER_OBJECTS))]

    def draws_random_numbers(self) -> bool:
        """Whether a forward pass advances the random state, as dropout does."""
        with random_state_kept(self._case), torch.no_grad():
            before = _random_state(self.inputs)
            self.module(*self.inputs)
            drawn = not all(map(torch.equal, before, _random_state(self.inputs)))
        self.restore()
        return drawn


@contextmanager
def random_state_kept(case: Case) -> Iterator[None]:
    """Leave the caller's random state, CPU and device, as it was."""
    with devices_random_state_kept(*{str(x.device) for x in case.inputs}):
        yield


@contextmanager
def devices_random_state_kept(*devices: str) -> Iterator[None]:
    """Leave the random state of the CPU and of these devices as it was; a device that failed meanwhile keeps none."""
    states = {device: torch.cuda.get_rng_state(device) for device in devices if device.startswith("cuda")}
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for device, state in states.items():
                with suppress(RuntimeError):  # it would hide what took the device, if an exception tells that
                    torch.cuda.set_rng_state(state, device)


def in_double(case: Case, seed: int) -> Outputs | None:
    """The outputs of one step in double precision, or None where the module cannot run so."""
    try:
        return Workload(case, dtype=torch.float64).outputs(seed)
    except (Exception, SystemExit):  # a module that casts by hand, or no memory for it: there is no arbiter then
        return None


def _differentiable(output: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]


def _cotangents(leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """Fixed gradients for the outputs, drawn on the CPU from a seed of their own, so the same for all."""
    generator = torch.Generator().manual_seed(0)
    return [torch.empty_like(leaf).copy_(torch.randn(leaf.shape, generator=generator)) for leaf in leaves]


def _put_back(own: torch.Tensor, given: torch.Tensor) -> None:
    if own.shape == given.shape and own.stride() == given.stride():
        own.copy_(given)
    else:  # it was squeezed, say, in place
        own.data = given.to(own.dtype, copy=True)


def _mixed(inputs: tuple[torch.Tensor, ...], seed: int) -> tuple[torch.Tensor, ...]:
    """Other inputs like these: the same values, each tensor's in an order that `seed` draws, alike on all devices."""
    if seed == OWN_INPUTS:
        return inputs
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(x.numel(), generator=generator).to(x.device) for x in inputs)
    return tuple(x.flatten()[order].view(x.shape) for x, order in zip(inputs, orders, strict=True))


def _copies(tensors: Any) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in tensors if isinstance(t, torch.Tensor)}


def _random_state(inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    cuda = {x.device for x in inputs if x.device.type == "cuda"}
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in cuda)]
