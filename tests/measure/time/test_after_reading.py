"""A case is timed in the process that read its memory with torch's profiler: nothing of that is left when it is."""

import dataclasses
import gc
import statistics
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from fake_time import TickingClock
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from afftool.bench.child import Isolated, Patience
from afftool.bench.entry import EagerOutputs, enter
from afftool.bench.rows import blank
from afftool.build import Case, build_case
from afftool.profile.capture import capture
from afftool.spec import CaseSpec, FusionSpec

CASE = CaseSpec(fusion=FusionSpec.parse("add"), channels=4, size=(4, 4))
SEEN: list[dict[str, Any]] = []


class Noting(nn.Module):
    """A sum that notes the surroundings it runs in."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        SEEN.append(surroundings(self))
        return x + self.scale * y


def surroundings(module: nn.Module) -> dict[str, Any]:
    """Everything by which a profiler, a recording or a hook of ours could still be at work."""
    return {
        "profiler": torch.autograd._profiler_enabled(),
        "kind of profiler": torch._C._autograd._profiler_type().name,
        "profiler, as Python has it": torch.autograd.profiler._is_profiler_enabled,
        "saved tensors' hooks": torch._C._autograd._top_saved_tensors_default_hooks(False),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "function modes": torch._C._len_torch_function_stack(),
        "history of allocations": getattr(torch._C, "_cuda_isHistoryEnabled", bool)(),
        "hooks": [*module._forward_hooks, *module._forward_pre_hooks, *module._backward_hooks],
        "hooks of all modules": [*every_module._global_forward_hooks, *every_module._global_forward_pre_hooks],
        "frozen objects": gc.get_freeze_count(),
    }


def noting(mode: Literal["infer", "train"], device: str = "cpu") -> Case:
    case = build_case(dataclasses.replace(CASE, mode=mode, device=device))
    return dataclasses.replace(case, module=Noting().to(device).train(mode == "train"))


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_nothing_watches_a_step_that_is_timed_after_its_memory_was_read(mode: Literal["infer", "train"]) -> None:
    _timed_after_reading(noting(mode))


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_nothing_watches_it_on_a_gpu_either(mode: Literal["infer", "train"]) -> None:
    _timed_after_reading(noting(mode, "cuda:0"))


def _timed_after_reading(case: Case) -> None:
    gc.unfreeze()  # what the tests froze, which reading memory lets go of with its own
    untouched = surroundings(case.module)
    SEEN.clear()
    record = blank(case.spec, "eager")
    measures = ("memory", "latency")
    entrant = enter(case, record, eager=EagerOutputs(case), measures=measures, clock=TickingClock())
    assert entrant.record.peak_bytes
    assert any(seen != untouched for seen in SEEN), "while its memory was read it was watched"
    SEEN.clear()
    entrant.contestant.sample(2)
    assert SEEN
    assert all(seen == untouched for seen in SEEN)


def test_nothing_is_left_of_a_profile_either(tmp_path: Path) -> None:
    case = noting("train")
    untouched = surroundings(case.module)
    SEEN.clear()
    capture(case, "eager", tmp_path / "trace.json", steps=1, warmup=1)
    assert any(seen != untouched for seen in SEEN)
    assert surroundings(case.module) == untouched


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["eager", "cudagraph"])
def test_a_gpu_s_steps_take_as_long_where_the_memory_was_read_before(backend: str) -> None:
    """Two processes in turns, only one of which ever had a profiler; the bound is wide, for it is about time."""
    spec = CaseSpec(fusion=FusionSpec.parse("aff"), channels=32, size=(16, 16), batch=4, device="cuda:0")
    processes = [
        Isolated(spec, blank(spec, backend), measures=measures, patience=Patience(ready_s=600.0))
        for measures in (("latency",), ("memory", "latency"))
    ]
    try:
        taken = [[process.sample(50).step_s for process in processes] for _ in range(45)][5:]
    finally:
        for process in processes:
            process.close()
    before, after = (statistics.median(times) for times in zip(*taken, strict=True))
    assert 0.75 < after / before < 1.33
