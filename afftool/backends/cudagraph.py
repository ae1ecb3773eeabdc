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
from afftool.backends.capture import CaptureFailed, Graphs, clear_workspaces
from afftool.backends.getting_ready import seconds, wait
from afftool.backends.outputs import Outputs
from afftool.backends.workload import Workload
from afftool.build import Case
from afftool.errors import Unavailable

WARM_UP_STEPS = 3
"""Steps on the capture's stream before it, in which libraries make their handles and choose their algorithms."""


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
        restore=captured._work.restoring,
        workload=captured._work,
        parts=captured.parts,
        library_bytes=captured.library_bytes,
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
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graphs = Graphs(stream)
        first_call_s = self._warm_up(stream)
        wait(self._device)
        start = time.perf_counter()
        try:
            self._graphs.capture(self._captured_parts(), self._let_go)
        except CaptureFailed as failed:
            raise Unavailable(
                f"the step cannot be captured in a CUDA graph: {str(failed).splitlines()[0]}",
                hint="look for operators that wait for the device (.item(), .cpu(), nonzero) or depend on data",
            ) from failed
        wait(self._device)
        self.preparation = Preparation(
            first_call_s=first_call_s,
            capture_s=time.perf_counter() - start,
            cuda_graphs=len(self._graphs.replays),
        )

    @property
    def parts(self) -> Mapping[str, Callable[[], None]]:
        """The replays of a training step, in order; empty for inference."""
        return self._graphs.replays if self._work.training else {}

    @property
    def library_bytes(self) -> int:
        """What of the private pool is workspace of CUDA's libraries."""
        return self._graphs.library_bytes

    def repeat(self, times: int) -> None:
        """Replay `times` steps."""
        replays = [*self._graphs.replays.values()]
        for _ in itertools.repeat(None, times):
            for replay in replays:
                replay()

    def outputs(self, seed: int) -> Outputs:
        """What one replay from the case's initial state leaves behind; the learning rate of zero changes no weight."""
        self._work.restore(seed)
        torch.manual_seed(seed)
        self.repeat(1)
        wait(self._device)
        return self._work.collect(self._leaves)

    def close(self) -> None:
        """Give the private pool back, and what lies in it: the outputs and the gradients."""
        wait(self._device)
        self._graphs.close()
        self._let_go()

    def _let_go(self) -> None:
        self._leaves.clear()
        self._work.leaves.clear()
        self._work.forget_gradients()

    def _warm_up(self, stream: torch.cuda.Stream) -> float:
        clear_workspaces()  # the stream takes its own: with those of others it would be one too many
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            first_call_s = seconds(self._work.run, self._device)
            self._work.run(WARM_UP_STEPS - 1)
        torch.cuda.current_stream().wait_stream(stream)
        return first_call_s

    def _captured_parts(self) -> Mapping[str, Callable[[], None]]:
        """What is captured in each graph, in order; the outputs are kept where the replays write them."""
        work = self._work
        if not work.training:
            return {"forward": self._run_inference}
        # With no gradients left over, backward is captured as writing them, and each replay overwrites the last.
        work.forget_gradients()
        return {**work.parts, "forward": self._run_forward}

    def _run_inference(self) -> None:
        with self._work.mode():
            self._leaves = tree_leaves(self._work.forward(*self._work.inputs))

    def _run_forward(self) -> None:
        self._work.run_forward()
        self._leaves = [leaf.detach() for leaf in self._work.leaves]
