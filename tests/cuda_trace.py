"""A trace as torch.profiler writes it on a GPU, small and with times chosen so that every figure is known by hand.

Three steps of 1000 us. In each: `aten::conv2d` calls `aten::cudnn_convolution`, which launches `conv_kernel` (200 us);
`aten::add` launches `add_kernel` (50 us) and is inside the module `gate`; a copy of 30 us follows. The three device
spans of a step start 100, 400 and 500 us into it, so a step's device is idle for 100 us between the kernels and 50 us
before the copy.
"""

from __future__ import annotations

from typing import Any

STEPS = 3
STEP_US = 1000.0
ORIGIN = 4_500_000_000_000.0  # as large as real ones: microseconds since the machine started


def cuda_trace() -> dict[str, Any]:
    events: list[dict[str, Any]] = []
    number = 0

    def host(name: str, cat: str, at: float, dur: float, **args: Any) -> int:
        nonlocal number
        number += 1
        args = {"External id": number, "Record function id": 0, "Ev Idx": number} | args
        events.append(
            {"ph": "X", "cat": cat, "name": name, "pid": 77, "tid": 77, "ts": ORIGIN + at, "dur": dur, "args": args}
        )
        return number

    def launch(op: int, call: str, cat: str, at: float, name: str, device_at: float, dur: float) -> None:
        nonlocal number
        number += 1
        correlation = number
        events.append(
            {
                "ph": "X", "cat": "cuda_driver" if call.startswith("cu") and call[2].isupper() else "cuda_runtime",
                "name": call, "pid": 77, "tid": 77, "ts": ORIGIN + at, "dur": 5.0,
                "args": {"External id": op, "cbid": 211, "correlation": correlation},
            }
        )  # fmt: skip
        extra = {"grid": [64, 1, 1], "block": [128, 1, 1], "registers per thread": 32, "shared memory": 0}
        if cat == "kernel":
            extra |= {"blocks per SM": 0.5, "warps per SM": 2.0, "est. achieved occupancy %": 25}
        events.append(
            {
                "ph": "X", "cat": cat, "name": name, "pid": 0, "tid": 7, "ts": ORIGIN + device_at, "dur": dur,
                "args": {"External id": op, "device": 0, "context": 1, "stream": 7, "correlation": correlation} | extra,
            }
        )  # fmt: skip

    for step in range(STEPS):
        start = step * STEP_US
        host(f"ProfilerStep#{step + 7}", "user_annotation", start, 900.0)
        events.append({**events[-1], "cat": "gpu_user_annotation", "pid": 0, "tid": 7})
        host("nn.Module: . (Net)", "user_annotation", start + 10, 400.0)
        host("aten::conv2d", "cpu_op", start + 20, 120.0)
        convolution = host("aten::cudnn_convolution", "cpu_op", start + 40, 80.0)
        launch(convolution, "cudaLaunchKernel", "kernel", start + 50, "conv_kernel", start + 100, 200.0)
        host("nn.Module: gate (Gate)", "user_annotation", start + 200, 100.0)
        add = host("aten::add", "cpu_op", start + 220, 60.0)
        launch(add, "cuLaunchKernel", "kernel", start + 230, "add_kernel", start + 400, 50.0)
        copy = host("aten::copy_", "cpu_op", start + 420, 40.0)
        launch(copy, "cudaMemcpyAsync", "gpu_memcpy", start + 430, "Memcpy DtoD", start + 500, 30.0)
        for at, size, held in ((30, 4096, 4096), (300, -4096, 0)):
            events.append(
                {
                    "ph": "i", "cat": "cpu_instant_event", "s": "t", "name": "[memory]", "pid": 77, "tid": 77,
                    "ts": ORIGIN + start + at,
                    "args": {
                        "Total Reserved": 2**21, "Total Allocated": held, "Bytes": size, "Device Id": 0,
                        "Device Type": 1, "Addr": 140_000_000_000 + step,
                    },
                }
            )  # fmt: skip
    events.append({"ph": "M", "name": "process_name", "pid": 77, "tid": 0, "ts": ORIGIN, "args": {"name": "python"}})
    return {
        "schemaVersion": 1,
        "deviceProperties": [
            {
                "id": 0, "name": "NVIDIA H100 80GB HBM3", "totalGlobalMem": 84_942_979_072, "computeMajor": 9,
                "computeMinor": 0, "maxThreadsPerBlock": 1024, "numSms": 132,
            }
        ],
        "displayTimeUnit": "ms",
        "traceEvents": events,
    }  # fmt: skip
