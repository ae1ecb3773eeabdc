"""Eager kernels captured by hand into CUDA graphs, and replayed without Python or the dispatcher in between.

Inference is one graph. A training step is three that share one memory pool (forward, backward, optimizer), so that
its parts can be timed apart; replayed in that order they are one step. Inputs and gradients stay where they were at
capture. The optimizer part is missing where there are no parameters.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from afftool.backends import Preparation, Prepared
from afftool.backends.getting_ready import seconds, wait
from afftool.backends.outputs import Outputs
from afftool.backends.workload import Workload
from afftool.build import Case
from afftool.errors import Unavailable

WARM_UP_STEPS = 3
"""Steps on a side stream before the capture, in which libraries make their handles and choose their algorithms."""


def prepare(case: Case) -> Prepared:
    """Capture the case. Raises `Unavailable` off CUDA, and where an operator cannot be captured."""
    device = case.spec.device
    if not device.startswith("cuda"):
        raise Unavailable(
            "CUDA graphs need a CUDA device, and this case runs on the CPU", hint="use --device cuda where there is one"
        )
    with torch.cuda.device(device):
        captured = Captured(case)
    return Prepared(
        backend="cudagraph",
        repeat=captured.repeat,
        workload=captured._work,
        parts=captured.parts,
        outputs=captured.outputs,
        preparation=captured.preparation,
        close=captured.close,
    )


class Captured:
    """A case's graphs, with the tensors they read and write."""

    def __init__(self, case: Case) -> None:
        self._work = Workload(case)
        self._device = case.spec.device
        self._leaves: list[Any] = []
        self._graphs: dict[str, torch.cuda.CUDAGraph] = {}
        first_call_s = self._warm_up()
        wait(self._device)
        start = time.perf_counter()
        try:
            self._capture()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise Unavailable(
                f"the step cannot be captured in a CUDA graph: {str(error).splitlines()[0]}",
                hint="look for operators that wait for the device (.item(), .cpu(), nonzero) or depend on data",
            ) from error
        wait(self._device)
        self.preparation = Preparation(first_call_s=first_call_s, capture_s=time.perf_counter() - start)

    @property
    def parts(self) -> Mapping[str, Callable[[], None]]:
        """The replays of a training step, in order; empty for inference."""
        return {name: graph.replay for name, graph in self._graphs.items()} if self._work.training else {}

    def repeat(self, times: int) -> None:
        """Replay `times` steps."""
        replays = [graph.replay for graph in self._graphs.values()]
        for _ in itertools.repeat(None, times):
            for replay in replays:
                replay()

    def outputs(self, seed: int) -> Outputs:
        """What one replay from the case's initial state leaves behind; the learning rate of zero changes no weight."""
        self._work.restore()
        torch.manual_seed(seed)
        self.repeat(1)
        wait(self._device)
        return self._work.collect(self._leaves)

    def close(self) -> None:
        """Give the private pool back."""
        wait(self._device)
        for graph in self._graphs.values():
            graph.reset()
        self._graphs.clear()
        self._leaves.clear()

    def _warm_up(self) -> float:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            first_call_s = seconds(self._work.run, self._device)
            self._work.run(WARM_UP_STEPS - 1)
        torch.cuda.current_stream().wait_stream(side)
        return first_call_s

    def _capture(self) -> None:
        work, pool = self._work, torch.cuda.graph_pool_handle()
        if not work.training:
            self._graphs["forward"] = graph = torch.cuda.CUDAGraph()
            with torch.inference_mode(), torch.cuda.graph(graph, pool=pool):
                output = work.forward(*work.inputs)
            self._leaves = tree_leaves(output)
            return
        # With no gradients left over, backward is captured as writing them, and each replay overwrites the last.
        work.forget_gradients()
        for name, part in (("forward", work.run_forward), *list(work.parts.items())[1:]):
            self._graphs[name] = graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                part()
            if name == "forward":
                self._leaves = [leaf.detach() for leaf in work.leaves]
