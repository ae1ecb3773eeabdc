"""Training on a CUDA device."""

import json
import subprocess
import sys
from pathlib import Path

import cuda_faults
import pytest
import torch
from small_cells import small, train

from afftool.device_health import answers
from afftool.study.cells import CellRecord
from afftool.study.engines import build_engine, local
from afftool.study.engines.gpus import CONTEXT_BYTES, measured
from afftool.study.engines.local import LocalEngine, run_here
from afftool.study.plan import Compile, Conditions, Plan, plan

pytestmark = pytest.mark.gpu

COMMAND = """
import sys, torch
from afftool.cli import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
contexts = [index for index in range(torch.cuda.device_count()) if torch._C._cuda_hasPrimaryContext(index)]
assert not contexts, contexts
"""
"""The command line, in a process that is to hold no context when it ends."""


@pytest.mark.parametrize("compiled", ["never", "always"])
def test_a_cell_learns_in_bfloat16_eager_and_compiled(compiled: Compile, tmp_path: Path) -> None:
    made = plan(
        small(epochs=8, train_images=400).with_variants(["add", "aff"]), Conditions(device="cuda", compiled=compiled)
    )
    engine = build_engine("local", made, device="cuda", workers=0, address=None, gpus=None)
    records = train(made, engine, tmp_path)
    assert {record.cell.dtype for record in records.values()} == {"bfloat16"}
    assert all(record.accuracy is not None and record.accuracy > 0.4 for record in records.values())


@pytest.mark.parametrize("words", [("--workers", "2"), ()], ids=["two workers", "as many as fit"])
def test_workers_share_a_gpu_and_the_process_that_starts_them_opens_no_context(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    study = ["ablate", "scale", "--data", "digits", "--train-images", "96", "--batch", "32", "--epochs", "1"]
    words = ("--seeds", "1", "--device", "cuda:0", "--json", *words)
    asked = subprocess.run(
        [sys.executable, "-c", COMMAND, *study, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    cells = [CellRecord.from_dict(cell) for cell in json.loads(asked.stdout)["cells"]]
    assert [cell.status for cell in cells] == ["ok"] * 3
    assert {cell.gpu for cell in cells} == {torch.cuda.get_device_name(0)}


def test_a_cells_memory_is_measured_elsewhere_and_leaves_nothing_here() -> None:
    made = plan(small(), Conditions(device="cuda"))
    total = torch.cuda.get_device_properties(0).total_memory
    before = torch.cuda.memory_allocated(0), torch.cuda.memory_reserved(0)
    (free,), needed = measured(made, [0])
    assert 0 < needed + CONTEXT_BYTES < free <= total
    assert (torch.cuda.memory_allocated(0), torch.cuda.memory_reserved(0)) == before


def faulty(fault: str) -> Plan:
    """A cell with a fault that only a GPU shows, and then one that is well."""
    return plan(small(budget=None).with_variants([f"cuda_faults:{fault}", "add"]), Conditions(device="cuda"))


def test_a_failed_assertion_on_the_gpu_costs_one_cell_its_attempts_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "ATTEMPTS", 1)
    bad, well = train(faulty("Asserting"), LocalEngine(("cuda:0",)), tmp_path).values()
    assert (bad.status, bad.finished, well.status) == ("failed", False, "ok")
    assert "cuda:0 no longer answers after" in str(bad.reason)
    assert "device-side assert" in str(bad.reason)


def test_a_cell_for_which_memory_ran_out_leaves_none_of_it_taken(tmp_path: Path) -> None:
    assert answers("cuda:0")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(0)
    cells = faulty("Hungry")
    events = []
    for event in run_here([cell for _, _, cell in cells.cells], cells.subsets, tmp_path, device="cuda:0"):
        if isinstance(event, CellRecord):
            events.append((event.status, torch.cuda.memory_reserved(0)))
            if event.status == "failed":
                assert str(event.reason).startswith("out of memory")
    (bad, held), (well, _) = events
    assert (bad, well) == ("failed", "ok")
    assert held < before + cuda_faults.TAKEN_BYTES
