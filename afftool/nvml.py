"""One GPU as NVIDIA's management library (NVML) knows it: what is set on it, what holds it back, who uses it.

Neither torch nor the library's Python binding is imported before a GPU is asked for. What a driver or a board does
not tell is None or nothing, never an error.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from afftool.errors import Unavailable, UserError

HELD_BACK = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "temperature",
    0x40: "temperature, by hardware",
    0x80: "power brake",
}
"""Bits of NVML's clocks event reasons that mean the GPU ran slower than it could."""


COUNTED = {"power cap": 0, "temperature": 1, "sync boost": 2, "board limit": 3, "reliability": 5}
"""NVML's performance policies that count how long they kept the clocks lower than asked for.

Not among them: 4, low utilization, which counts while the GPU has nothing to do.
"""


COMPUTE_MODES = ("default", "exclusive thread", "prohibited", "exclusive process")
"""Who may compute on a GPU, by NVML's number for it."""


class Gpu:
    """One GPU through NVML."""

    def __init__(self, nvml: ModuleType, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle

    @classmethod
    def open(cls, device: str) -> Gpu:
        """The GPU that torch calls `device`; NVML's own indices may differ (CUDA_VISIBLE_DEVICES, order).

        Raises `Unavailable`: a CPU, no Python binding, no driver, a slice of a GPU (MIG).
        """
        if not device.startswith("cuda"):
            raise Unavailable(f"{device} is no GPU", hint="NVML knows NVIDIA's GPUs")
        try:
            import pynvml
        except ImportError as error:
            raise Unavailable("NVML's Python binding is not installed", hint="pip install 'afftool[gpu]'") from error
        import torch

        try:
            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(device).uuid
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        except pynvml.NVMLError as error:
            raise Unavailable(f"NVML does not know {device}: {error}", hint="see `nvidia-smi -L`") from error

    @classmethod
    def of(cls, device: str) -> Gpu | None:
        """As `open`, for who does without: None where there is none."""
        try:
            return cls.open(device)
        except Exception:  # also a torch that gives no uuid, or no properties: it is never worth a bench
            return None

    @property
    def power_limit_w(self) -> float | None:
        """Watts it may draw: the lowest of all limits that are set on it."""
        milliwatts = self._told("nvmlDeviceGetEnforcedPowerLimit")
        return None if milliwatts is None else milliwatts / 1000

    @property
    def max_clock_mhz(self) -> int | None:
        """The highest clock of its multiprocessors."""
        clock: int | None = self._told("nvmlDeviceGetMaxClockInfo", self._nvml.NVML_CLOCK_SM)
        return clock

    @property
    def application_clock_mhz(self) -> int | None:
        """The clock that programs get where power and temperature allow; newer boards have none."""
        clock: int | None = self._told("nvmlDeviceGetApplicationsClock", self._nvml.NVML_CLOCK_SM)
        return clock

    @property
    def mig(self) -> bool | None:
        """Whether it is cut into slices."""
        modes = self._told("nvmlDeviceGetMigMode")  # now, and after the next reset
        return None if modes is None else bool(modes[0])

    @property
    def compute_mode(self) -> str | None:
        """Who may compute on it, in a word or two."""
        mode = self._told("nvmlDeviceGetComputeMode")
        return COMPUTE_MODES[mode] if mode in range(len(COMPUTE_MODES)) else None

    def clocks_mhz(self) -> list[int]:
        """The clocks that its multiprocessors can have beside the fastest memory, slowest first; none if not told."""
        memory = self._told("nvmlDeviceGetSupportedMemoryClocks")
        return sorted(self._told("nvmlDeviceGetSupportedGraphicsClocks", max(memory)) or ()) if memory else []

    def lock_clock(self, mhz: int | None) -> None:
        """Hold the clock of its multiprocessors, None for the one it can keep at any load. Raises `UserError`."""
        clock = self._nvml.NVML_CLOCK_LIMIT_ID_TDP if mhz is None else mhz
        self._set("nvmlDeviceSetGpuLockedClocks", clock, clock)

    def free_clock(self) -> None:
        """Let the driver choose the clock again. Raises `UserError`."""
        self._set("nvmlDeviceResetGpuLockedClocks")

    def throttling(self) -> set[str]:
        """Why the clocks are held back at this moment."""
        bits = self._told("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:  # an older binding or driver
            bits = self._told("nvmlDeviceGetCurrentClocksThrottleReasons")
        return {reason for bit, reason in HELD_BACK.items() if (bits or 0) & bit}

    def throttled_ns(self) -> dict[str, int]:
        """Why the clocks were held back since the driver was loaded -> for how long; without what is not counted."""
        counted = {cause: self._told("nvmlDeviceGetViolationStatus", policy) for cause, policy in COUNTED.items()}
        return {cause: int(told.violationTime) for cause, told in counted.items() if told is not None}

    def processes(self) -> int:
        """How many processes compute on it. Only the number is used: in a container NVML shows the host's ids."""
        return len(self._told("nvmlDeviceGetComputeRunningProcesses") or ())

    def energy_mj(self) -> int:
        """Millijoules since the driver was loaded. Raises `Unavailable`."""
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise Unavailable(f"NVML counts no energy here: {error}", hint="it takes a GPU from Volta on") from error

    def _set(self, command: str, *values: int) -> None:
        try:
            getattr(self._nvml, command)(self._handle, *values)
        except self._nvml.NVMLError as error:
            if error.value == self._nvml.NVML_ERROR_NO_PERMISSION:
                raise UserError(
                    "this user may not change the GPU's clock",
                    hint="as root it works; or `sudo nvidia-smi -lgc MHZ` before, and `sudo nvidia-smi -rgc` after",
                ) from error
            raise UserError(
                f"the GPU's clock cannot be changed: {error}", hint="it takes a GPU from Volta on, on Linux or Windows"
            ) from error

    def _told(self, question: str, *about: int) -> Any:
        """The answer to a question by its name in the library, None where it is not answered."""
        ask = getattr(self._nvml, question, None)
        if ask is None:
            return None
        try:
            return ask(self._handle, *about)
        except self._nvml.NVMLError:
            return None
