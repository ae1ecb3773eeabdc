"""Training on a CUDA device."""

from pathlib import Path

import pytest
import torch
from small_cells import small, train

from afftool.study.engines import build_engine
from afftool.study.engines.gpus import step_bytes
from afftool.study.plan import Compile, Conditions, plan

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("compiled", ["never", "always"])
def test_a_cell_learns_in_bfloat16_eager_and_compiled(compiled: Compile, tmp_path: Path) -> None:
    made = plan(
        small(epochs=8, train_images=400).with_variants(["add", "aff"]), Conditions(device="cuda", compiled=compiled)
    )
    engine = build_engine("local", made, device="cuda", workers=0, address=None, gpus=None)
    records = train(made, engine, tmp_path)
    assert {record.cell.dtype for record in records.values()} == {"bfloat16"}
    assert all(record.accuracy is not None and record.accuracy > 0.4 for record in records.values())


def test_cells_share_the_gpu_by_memory(tmp_path: Path) -> None:
    made = plan(small(seeds=2), Conditions(device="cuda"))
    assert 0 < step_bytes(made, "cuda:0") < torch.cuda.get_device_properties(0).total_memory / 4
    engine = build_engine("local", made, device="cuda", workers=2, address=None, gpus=None)
    assert len(train(made, engine, tmp_path)) == 6
