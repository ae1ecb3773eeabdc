"""NVML played: a board with counters, clocks and limits, and somebody who may change them or not.

No test ever touches the real library's clocks: a card may be shared.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch


class NVMLError(Exception):
    """As the library's binding raises, with the number of the error."""

    def __init__(self, value: int) -> None:
        super().__init__({3: "Not Supported", 4: "Insufficient Permissions", 13: "Function Not Found"}.get(value, "?"))
        self.value = value


class FakeNvml:
    """The functions that afftool asks, of one board; `told` are the names of those that changed it, in order."""

    NVMLError = NVMLError
    NVML_ERROR_NO_PERMISSION = 4
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
    NVML_CLOCK_LIMIT_ID_TDP = 0xFFFFFF01

    def __init__(
        self, *, reasons: int = 0, processes: int = 0, violations: dict[int, int] | None = None, may: bool = True
    ) -> None:
        self.reasons = reasons
        self.count = processes
        self.violations = violations
        self.may = may
        self.lock: tuple[int, int] | None = None
        self.told: list[object] = []
        self.unsupported: set[str] = set()

    def nvmlInit(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int:  # noqa: N802
        return self.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=i) for i in range(self.count)]

    def nvmlDeviceGetViolationStatus(self, handle: Any, policy: int) -> SimpleNamespace:  # noqa: N802
        if self.violations is None or policy not in self.violations:
            raise NVMLError(3)
        return SimpleNamespace(referenceTime=0, violationTime=self.violations[policy])


def play(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml) -> FakeNvml:
    """Put it in the binding's place, for two GPUs of torch's."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"{device}"))
    return nvml
