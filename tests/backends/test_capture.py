"""What a capture leaves behind, on a device that is made up: `torch.cuda.graph` is torch's own."""

import dataclasses
from typing import Any

import fake_cuda
import pytest
import torch
from fake_cuda import WORKSPACE, FakeCuda

from afftool.backends import cudagraph
from afftool.backends.capture import CaptureFailed, Graphs, clear_workspaces, first_of
from afftool.build import Case, build_case
from afftool.errors import Unavailable
from afftool.spec import CaseSpec, FusionSpec

VERSIONS = [(2, 9), (2, 11), (2, 12), (2, 13), (2, 14)]


@pytest.fixture(params=VERSIONS, ids=lambda version: "torch {}.{}".format(*version))
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return fake_cuda.installed(monkeypatch, request.param)


def graphs(cuda: FakeCuda) -> Graphs:
    return Graphs(torch.cuda.Stream())  # type: ignore[no-untyped-call]


class Step:
    """Two parts that allocate, the second of which may fail."""

    def __init__(self, cuda: FakeCuda, failure: str | Exception | None = None) -> None:
        self.cuda = cuda
        self.failure = failure
        self.held: list[dict[str, Any]] = []

    def forward(self) -> None:
        self.cuda.matmul()
        self.held.append(self.cuda.allocate(1000))

    def backward(self) -> None:
        self.held.append(self.cuda.allocate(500))
        if self.failure == "synchronizes":
            self.cuda.synchronizing()
        elif isinstance(self.failure, Exception):
            self.cuda.invalid = isinstance(self.failure, torch.OutOfMemoryError)
            raise self.failure

    def let_go(self) -> None:
        for segment in self.held:
            self.cuda.free(segment)

    def captured_by(self, own: Graphs) -> None:
        own.capture({"forward": self.forward, "backward": self.backward}, self.let_go)


def assert_as_before(cuda: FakeCuda) -> None:
    assert cuda.current is cuda.default
    cuda.generator.draw()
    torch.cuda.empty_cache()
    assert cuda.segments == []
    assert not any(cuda.references.values())


def test_a_failed_capture_leaves_no_stream_no_pool_and_no_generator_behind(cuda: FakeCuda) -> None:
    with pytest.raises(CaptureFailed):
        Step(cuda, "synchronizes").captured_by(graphs(cuda))
    assert_as_before(cuda)


def test_another_case_can_be_captured_after_a_failed_one_and_closed(cuda: FakeCuda) -> None:
    with pytest.raises(CaptureFailed):
        Step(cuda, "synchronizes").captured_by(graphs(cuda))
    own, step = graphs(cuda), Step(cuda)
    step.captured_by(own)
    assert list(own.replays) == ["forward", "backward"]
    own.close()
    step.let_go()
    assert_as_before(cuda)


def test_it_tells_what_broke_the_capture_and_not_that_it_was_broken(cuda: FakeCuda) -> None:
    with pytest.raises(CaptureFailed, match="not permitted when stream is capturing"):
        Step(cuda, "synchronizes").captured_by(graphs(cuda))


def test_what_was_being_handled_before_is_not_the_cause(cuda: FakeCuda) -> None:
    try:
        raise RuntimeError("another variant's mistake")
    except RuntimeError:
        with pytest.raises(CaptureFailed, match="not permitted when stream is capturing"):
            Step(cuda, "synchronizes").captured_by(graphs(cuda))


def test_an_error_that_the_module_handled_is_not_the_cause() -> None:
    raised = RuntimeError("CUDA error: operation not permitted when stream is capturing")
    raised.__context__ = KeyError("of a cache")
    assert first_of(raised) is raised


@pytest.mark.parametrize("kind", [ValueError, torch.OutOfMemoryError])
def test_a_modules_own_error_and_a_lack_of_memory_stay_what_they_are(cuda: FakeCuda, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="of its own"):
        Step(cuda, kind("of its own")).captured_by(graphs(cuda))
    assert_as_before(cuda)


def test_tensors_that_only_the_frames_of_the_error_hold_do_not_keep_the_pool(cuda: FakeCuda) -> None:
    class Tensor:
        def __init__(self) -> None:
            self.segment = cuda.allocate(1000)

        def __del__(self) -> None:
            cuda.free(self.segment)

    def forward() -> None:
        local = Tensor()
        cuda.synchronizing()
        del local

    with pytest.raises(CaptureFailed):
        graphs(cuda).capture({"forward": forward}, lambda: None)
    assert_as_before(cuda)


def test_the_graphs_keep_a_workspace_of_their_own_that_nobody_can_take_away(cuda: FakeCuda) -> None:
    cuda.matmul()
    own, step = graphs(cuda), Step(cuda)
    step.captured_by(own)
    assert own.library_bytes == WORKSPACE
    assert not cuda.workspaces
    clear_workspaces()
    torch.cuda.empty_cache()
    assert WORKSPACE in [segment["total_size"] for segment in cuda.segments]
    own.close()
    step.let_go()
    assert_as_before(cuda)


def test_a_device_that_no_longer_answers_does_not_hide_the_cause(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    step = Step(cuda, "synchronizes")
    own = graphs(cuda)

    def let_go() -> None:
        monkeypatch.setattr(torch.cuda, "synchronize", dead)
        monkeypatch.setattr(torch.cuda, "empty_cache", dead)

    with pytest.raises(CaptureFailed, match="not permitted"):
        own.capture({"forward": step.forward, "backward": step.backward}, let_go)
    assert cuda.current is cuda.default


class OnTheDevice(torch.nn.Module):
    """A fusion that needs cuBLAS, and may wait for the device; its tensors are the CPU's."""

    def __init__(self, cuda: FakeCuda, waits: bool = False) -> None:
        super().__init__()
        self.device = [cuda]  # in a list, so that a copy of the module asks the same device
        self.waits = waits
        self.streams: list[Any] = []

    def __deepcopy__(self, memo: object) -> "OnTheDevice":
        return self

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        cuda = self.device[0]
        self.streams.append(cuda.current)
        cuda.matmul()
        if self.waits:
            cuda.synchronizing()
        return x + y


def case_of(module: torch.nn.Module, mode: str = "train") -> Case:
    spec = CaseSpec(fusion=FusionSpec.parse("add"), channels=2, size=(2, 2), mode=mode)  # type: ignore[arg-type]
    return Case(dataclasses.replace(spec, device="cuda:0"), module, build_case(spec).inputs)


def test_a_case_that_cannot_be_captured_is_unavailable_with_the_cause_and_leaves_nothing(cuda: FakeCuda) -> None:
    with pytest.raises(Unavailable, match="operation not permitted when stream is capturing\nhint") as caught:
        cudagraph.prepare(case_of(OnTheDevice(cuda, waits=True)))
    assert ".item()" in str(caught.value.hint)
    assert_as_before(cuda)


@pytest.mark.parametrize(("mode", "parts"), [("infer", 1), ("train", 2)])
def test_a_case_is_warmed_up_and_captured_on_one_stream_and_closing_it_gives_all_back(
    cuda: FakeCuda, mode: str, parts: int
) -> None:
    module = OnTheDevice(cuda)
    prepared = cudagraph.prepare(case_of(module, mode))
    assert len(set(module.streams)) == 1
    assert cuda.default not in module.streams
    assert prepared.preparation.cuda_graphs == parts
    assert prepared.library_bytes == WORKSPACE
    assert len(prepared.parts) == (parts if mode == "train" else 0)
    prepared.close()
    assert_as_before(cuda)
