"""Records and runs made up for tests of the reading side, where what was measured does not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from afftool.record import Environment, Record, Run
from afftool.store import Store

ENVIRONMENT = Environment(
    afftool="0.1.0",
    python="3.11.7",
    torch="2.13.0",
    platform="Linux x86_64",
    cpu="Some CPU",
    cores=2,
    threads=2,
    memory_bytes=8_000_000_000,
)


def record(fusion: str = "aff", **fields: Any) -> Record:
    defaults: dict[str, Any] = {"backend": "eager", "channels": 64, "height": 56, "width": 56, "batch": 8}
    return Record(fusion=fusion, **defaults | fields)


def timed(fusion: str, latency_ms: float, **fields: Any) -> Record:
    return record(
        fusion,
        latency_ms=latency_ms,
        latency_low_ms=latency_ms * 0.98,
        latency_high_ms=latency_ms * 1.03,
        samples=40,
        **fields,
    )


def bench_run() -> Run:
    """Two fusions and the baseline, a skipped row, a failed one with everything in it that has to be escaped."""
    return Run(
        id=7,
        command="afftool bench --fusion aff,iaff",
        started="2026-01-02T03:04:05+00:00",
        environment=ENVIRONMENT,
        baseline="add",
        records=(
            timed("add", 0.5, params=0, macs=0, flops=1_605_632, peak_bytes=19_267_584),
            timed("aff", 2.0, params=4576, macs=51_396_608, flops=122_062_848, peak_bytes=32_000_000),
            timed("iaff", 4.0, params=9152, macs=102_793_216, flops=242_520_064, peak_bytes=51_000_000),
            timed("add", 0.25, backend="compile", params=0, macs=0, flops=1_605_632, compile_s=3.5),
            timed("aff", 1 / 3, backend="compile", params=4576, macs=51_396_608, flops=122_062_848, compile_s=34.0),
            record("iaff", backend="compile", status="failed", reason='a | b <c> & "d", #e\nf'),
            record("iaff", backend="cudagraph", status="skipped", reason="CUDA graphs need a CUDA device"),
        ),
    )


def keep(path: Path, *runs: Run) -> None:
    """Each of these runs as a finished run of the store at `path`."""
    with Store.open(path) as store:
        for run in runs:
            run_id = store.begin(run.command, run.environment, run.baseline)
            for row in run.records:
                store.append(run_id, row)
            store.finish(run_id)
