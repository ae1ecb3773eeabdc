"""A device that no longer answers is told from one that is only full. torch.cuda is played; a GPU plays itself."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from afftool.device_health import answers, failure_on, free_memory

ASSERTED = "CUDA error: device-side assert triggered"


def raising(error: Exception) -> Callable[..., Any]:
    def raised(*_: Any, **__: Any) -> Any:
        raise error

    return raised


@pytest.fixture
def _answering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)


def test_the_cpu_answers_and_nobody_asks_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", raising(AssertionError("asked")))
    assert answers("cpu")


@pytest.mark.usefixtures("_answering")
@pytest.mark.parametrize(
    ("error", "alive"),
    [
        (torch.AcceleratorError(ASSERTED), False),
        (RuntimeError("CUDA driver error: an illegal memory access was encountered"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB"), True),
    ],
)
@pytest.mark.parametrize("call", ["cuda.synchronize", "empty"])
def test_an_error_means_that_it_no_longer_answers_but_for_memory_that_ran_out(
    call: str, error: Exception, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answers("cuda:1")
    monkeypatch.setattr(f"torch.{call}", raising(error))
    assert answers("cuda:1") == alive


@pytest.mark.usefixtures("_answering")
def test_the_device_s_own_words_stand_beside_those_of_whoever_met_its_failure_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR\nand so on")
    assert failure_on("cuda:0", first).reason == "RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"
    monkeypatch.setattr(torch.cuda, "synchronize", raising(torch.AcceleratorError(f"{ASSERTED}\nCompile with")))
    assert failure_on("cuda:0", first).reason == (
        f"RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR; cuda:0 no longer answers: {ASSERTED}"
    )
    assert failure_on("cuda:0", RuntimeError(ASSERTED)).reason == f"RuntimeError: {ASSERTED}", "it says so itself"
    assert "no longer" not in failure_on("cpu", first).reason


def test_memory_is_given_back_without_a_word_from_a_dead_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", raising(torch.AcceleratorError(ASSERTED)))
    free_memory()


KILLED = """
import contextlib, os, torch
from afftool.device_health import answers, failure_on, free_memory
assert answers("cuda:0")
try:
    torch.empty(2**50, dtype=torch.uint8, device="cuda:0")
except torch.OutOfMemoryError:
    pass
assert answers("cuda:0"), "it is only full"
with contextlib.suppress(RuntimeError):
    torch.zeros(4, device="cuda:0")[torch.tensor([99], device="cuda:0")]
assert not answers("cuda:0")
free_memory()
assert not answers("cuda:0"), "it never does again"
os._exit(0)  # without torch's own clean-up, which may abort on a dead device
"""

NO_CONTEXT = """
import torch
from afftool.device_health import free_memory
free_memory()
assert not torch._C._cuda_hasPrimaryContext(0)
"""


@pytest.mark.gpu
@pytest.mark.parametrize("program", [KILLED, NO_CONTEXT], ids=["after a failed assertion", "before any context"])
def test_a_gpu_is_asked_in_a_process_of_its_own(program: str) -> None:
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert asked.returncode == 0, asked.stderr
