"""What is kept of a measurement: one flat row a case and backend, and the machine it was taken on.

The last word of a field is its unit. Exact values are stored; None means "there is none", never 0.

Schema history: 1, the first. In its older records `single_steps` is None, and `latency_p99_ms` is the percentile of
samples, each the mean over `steps_per_sample`; the interval of a row timed in several processes spans theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from afftool.masked import masked
from afftool.plain import Plain, digest, later

SCHEMA = 1

Status = Literal["ok", "skipped", "failed", "oom"]
Cache = Literal["warm", "cold"]
Isolation = Literal["none", "process"]


@dataclass(frozen=True, kw_only=True)
class Record(Plain):
    """One case under one backend: what was asked, what was read, and if it was not, why.

    `latency_low_ms` and `latency_high_ms` bound the 95% interval of `latency_ms`, the median of the samples;
    `latency_p99_ms` is of `single_steps`, timed one by one, None where the clock cannot tell one; `live_params` are the
    parameters a gradient can reach; `flops` count 2 per multiply-add plus elementwise work; `macs`, `flops` and
    `moved_bytes` are the forward pass's, in train mode `backward_macs`, ... are the backward pass's; in train mode
    `latency_ms` is the whole step and `forward_ms`, `backward_ms` and `optimizer_ms` are its parts. `samples_ms` are
    kept beside the row, in the order they were taken: one a round, so that the nth samples of rows timed together are a
    pair.

    `instability` names what disturbed the timing, each with advice, and `instability_figures` how much: the more the
    worse, to be compared within a kind alone, None in older records; `stopped` says why sampling ended.
    `latency_ratio` is this row's time over that of the fusion `baseline` under the same backend, from the same
    rounds, with its 95% interval. `compile_cache` is cold if every graph was compiled anew for `compile_s`;
    `recompiles` are the compilations after the first call. `cuda_graphs` are replayed in a step, `skipped_graphs` are
    the compiler's that were to be CUDA graphs and are not. `error_vs_eager` is the largest difference from eager
    relative to the largest value of its kind (outputs, input gradients, parameter gradients, buffers),
    `rms_error_vs_eager` the difference's norm over eager's in the kind where that is most, `differing_share` the share
    of elements that differ by more than rounding (eager itself jumps there too, or there were no times).
    `nonfinite_share` of the values of the outputs and gradients are infinite or NaN.

    `allocator` is `kept` if the process held on to freed CPU memory while it was timed, `system` if the C library did
    as it liked, `tuned` if it was told by the environment how, else the name of the malloc that was preloaded; times of
    different ones are never compared. `page_faults` are those of a step. A row timed in several fresh `processes` has
    their samples one after another (`process_samples` of each); there a process is one draw: `latency_ms` is the
    geometric mean of their medians, `latency_ratio` that of the pairs' ratios, with Student's intervals of the
    logarithms. Of one process alone the interval is that process's. Where they form two groups, `fast_group_ms` and
    `slow_group_ms` are the groups' medians and `slow_group_share` the share of the processes in the slow one.

    `peak_bytes` is a steady step's peak, parameters and inputs included; `peak_parts_bytes` splits it by cause and
    `workspace_bytes` is its part with no other cause; `cold_peak_bytes` is the peak of getting there (compiling,
    autotuning, the first step). Eager's memory on the CPU is read with one thread. `saved_bytes` are what forward
    keeps for backward, inputs included, parameters not. On CUDA `peak_bytes` counts the allocator's blocks,
    `requested_bytes` what was asked for, and `reserved_bytes` what was taken from the driver for it.

    `bound` is what keeps this row from being faster on a calibrated machine, `least_ms` the time it cannot go below
    there, `least_share` that over `latency_ms`. `energy_j` is of one step, the device's idle power included.
    `launched_ops` are the operator calls of a step that move data, forward and backward. `writes_inputs` names the
    inputs that the module writes into; each step sees the same values, put back before it, in no number of the row.

    `fused_at` says of a grafted network how many of its sites that are fused have which shape, as `add 2*64@56x56`
    (`afftool.spec.places`), and `adapter_params` are those of what its maps need beside the fusions.

    `global_state` names what the row's own files set for the whole process when they were imported, built or run (grad
    mode, threads, seeds, ...); it was put back each time, so that no other row ran under it.
    """

    fusion: str
    host: str = "module"
    scenario: str | None = None
    backend: str | None = None
    mode: str = "infer"
    device: str = "cpu"
    dtype: str = "float32"
    memory_format: str = "contiguous"
    batch: int = 1
    channels: int | None = None
    depth: int | None = None
    height: int | None = None
    width: int | None = None
    identity: str = ""

    params: int | None = None
    live_params: int | None = None
    macs: int | None = None
    flops: int | None = None
    moved_bytes: int | None = None
    uncounted_ops: dict[str, int] | None = None
    backward_macs: int | None = None
    backward_flops: int | None = None
    backward_moved_bytes: int | None = None
    launched_ops: int | None = None

    latency_ms: float | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    latency_iqr_ms: float | None = None
    latency_p99_ms: float | None = None
    single_steps: int | None = None
    forward_ms: float | None = None
    backward_ms: float | None = None
    optimizer_ms: float | None = None
    samples: int | None = None
    outliers: int | None = None
    steps_per_sample: int | None = None
    warmup_s: float | None = None
    stopped: Literal["precision", "budget"] | None = None
    cache: Cache | None = None
    isolation: Isolation | None = None
    processes: int | None = None
    process_samples: tuple[int, ...] | None = None
    fast_group_ms: float | None = None
    slow_group_ms: float | None = None
    slow_group_share: float | None = None
    allocator: str | None = None
    page_faults: float | None = None
    instability: dict[str, str] | None = None
    instability_figures: dict[str, float] | None = None
    throughput_per_s: float | None = None
    baseline: str | None = None
    latency_ratio: float | None = None
    latency_ratio_low: float | None = None
    latency_ratio_high: float | None = None
    first_call_s: float | None = None
    compile_s: float | None = None
    compile_cache: Literal["cold", "warm"] | None = None
    capture_s: float | None = None
    graph_breaks: int | None = None
    guards: int | None = None
    recompiles: int | None = None
    cuda_graphs: int | None = None
    skipped_graphs: int | None = None

    peak_bytes: int | None = None
    cold_peak_bytes: int | None = None
    param_bytes: int | None = None
    gradient_bytes: int | None = None
    optimizer_bytes: int | None = None
    saved_bytes: int | None = None
    workspace_bytes: int | None = None
    graph_pool_bytes: int | None = None
    reserved_bytes: int | None = None
    requested_bytes: int | None = None
    peak_parts_bytes: dict[str, int] | None = None

    bound: Literal["launch", "memory", "compute"] | None = None
    least_ms: float | None = None
    least_share: float | None = None
    energy_j: float | None = None

    error_vs_eager: float | None = None
    rms_error_vs_eager: float | None = None
    differing_share: float | None = None
    nonfinite_share: float | None = None
    fused_at: dict[str, int] | None = None
    adapter_params: int | None = None
    global_state: dict[str, str] | None = None
    writes_inputs: tuple[str, ...] | None = None
    status: Status = "ok"
    reason: str | None = None
    samples_ms: tuple[float, ...] = field(default=(), repr=False)


TORCH_DEFAULTS: Mapping[str, str | bool] = {
    "float32_matmul_precision": "highest",
    "matmul_fp32_precision": "ieee",
    "conv_fp32_precision": "tf32",
    "cudnn_benchmark": False,
    "cudnn_deterministic": False,
    "deterministic_algorithms": False,
}
"""Torch's switches for arithmetic on a GPU, as torch has them: they are in a fingerprint only where they differ."""
_BESIDE = (
    "afftool",
    "memory_bytes",
    "gpu_memory_bytes",
    "gpu_power_limit_w",
    "gpu_max_clock_mhz",
    "gpu_application_clock_mhz",
    "gpu_locked_clock",
    "gpu_mig",
    "gpu_compute_mode",
)


@dataclass(frozen=True, kw_only=True)
class Environment(Plain):
    """The machine and the software a run was made with. `fingerprint` names what makes times comparable.

    Its hash is stored: a field that is added is declared by `plain.later`.

    On a machine with a GPU it also holds how torch multiplies and convolves float32 there (`ieee`, or `tf32` with ten
    bits of mantissa), whether cuDNN tries algorithms out, and whether either is held to deterministic ones; all as it
    was in the process that read it. `float32_matmul_precision` is None where torch does not tell it, because its newer
    switches were used.

    Beside the fingerprint stands what is set on the GPU: `gpu_locked_clock` is where the run held the clock of its
    multiprocessors, `base` or as `1410 MHz`; `gpu_mig` is true for a slice of a GPU.
    """

    afftool: str
    python: str
    torch: str | None = None
    cuda: str | None = None
    triton: str | None = None
    platform: str = ""
    cpu: str = ""
    cores: int = 1
    threads: int = 1
    memory_bytes: int | None = None
    gpu: str | None = None
    gpu_memory_bytes: int | None = None
    driver: str | None = None
    compiler: str | None = None

    float32_matmul_precision: str | None = later(None)
    matmul_fp32_precision: str | None = later(None)
    conv_fp32_precision: str | None = later(None)
    cudnn_benchmark: bool | None = later(None)
    cudnn_deterministic: bool | None = later(None)
    deterministic_algorithms: bool | None = later(None)

    gpu_power_limit_w: float | None = later(None)
    gpu_max_clock_mhz: int | None = later(None)
    gpu_application_clock_mhz: int | None = later(None)
    gpu_locked_clock: str | None = later(None)
    gpu_mig: bool | None = later(None)
    gpu_compute_mode: str | None = later(None)

    @property
    def fingerprint(self) -> str:
        """Equal on machines whose times may be compared: hardware, threads and torch, not afftool itself."""
        return digest(self, self.to_dict(), without=self.beside, length=12)

    @property
    def beside(self) -> set[str]:
        """The fields that stand beside the fingerprint: they say nothing about times, or what every torch does."""
        return {*_BESIDE, *(name for name, usual in TORCH_DEFAULTS.items() if getattr(self, name) in (None, usual))}


@dataclass(frozen=True, kw_only=True)
class Run:
    """The records of one command, with when, where and how they came about.

    The command is without secrets, also where the store it was read from has some.
    """

    id: int
    command: str
    started: str
    environment: Environment
    baseline: str | None = None
    """The fusion whose cost the others are compared with, as text."""
    records: tuple[Record, ...] = ()
    finished: bool = True
    """False while the command runs, and for good if it was interrupted."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "command", masked(self.command))
