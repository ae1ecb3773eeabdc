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

    def _if_supported(self, name: str, value: Any) -> Any:
        if name in self.unsupported:
            raise NVMLError(3)
        return value

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:  # noqa: N802
        return self._if_supported("power", 700_000)

    def nvmlDeviceGetMaxClockInfo(self, handle: Any, kind: int) -> int:  # noqa: N802
        return self._if_supported("clocks", {1: 1980, 2: 3201}[kind])

    def nvmlDeviceGetApplicationsClock(self, handle: Any, kind: int) -> int:  # noqa: N802
        return self._if_supported("applications", {1: 1830, 2: 3201}[kind])

    def nvmlDeviceGetMigMode(self, handle: Any) -> list[int]:  # noqa: N802
        return self._if_supported("mig", [0, 0])

    def nvmlDeviceGetComputeMode(self, handle: Any) -> int:  # noqa: N802
        return self._if_supported("mode", 3)

    def nvmlDeviceGetSupportedMemoryClocks(self, handle: Any) -> list[int]:  # noqa: N802
        return self._if_supported("supported", [3201, 1593])

    def nvmlDeviceGetSupportedGraphicsClocks(self, handle: Any, memory_mhz: int) -> list[int]:  # noqa: N802
        assert memory_mhz == 3201
        return self._if_supported("supported", list(range(1980, 344, -15)))

    def nvmlDeviceSetGpuLockedClocks(self, handle: Any, low: int, high: int) -> None:  # noqa: N802
        self._if_supported("lock", None)
        if not self.may:
            raise NVMLError(4)
        self.lock = (low, high)
        self.told.append(("lock", handle, low, high))

    def nvmlDeviceResetGpuLockedClocks(self, handle: Any) -> None:  # noqa: N802
        self._if_supported("reset", None)
        if not self.may:
            raise NVMLError(4)
        self.lock = None
        self.told.append(("reset", handle))

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
    """Put it in the binding's place, with GPUs of torch's to go with it."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml)

    def properties(device: object) -> SimpleNamespace:
        return SimpleNamespace(name="NVIDIA H200", total_memory=150_000_000_000, uuid=f"{device}")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    return nvml
