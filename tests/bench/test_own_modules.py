"""Modules of the user's own that no gradient passes, or that change the process: said, and no other row moves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cut_modules import CUT
from fake_time import TickingClock
from made_up_runs import bench_run

from afftool.bench import Options, bench
from afftool.record import Record
from afftool.report.caveats import caveats
from afftool.spec import CaseSpec, FusionSpec, HostSpec

pytestmark = pytest.mark.usefixtures("hurried")

MODULES = f"""{CUT}
class OwnLeaf(Plain):
    def forward(self, x, y):
        return (self.fc(x + y).detach()).requires_grad_()

class Frozen(Plain):
    def __init__(self, channels):
        super().__init__(channels)
        self.requires_grad_(False)

class FrozenBehindDetach(Frozen):
    def forward(self, x, y):
        return self.fc((x + y).detach())

class First(nn.Module):
    def forward(self, x, y):
        return x

class Stops(Plain):
    def forward(self, x, y):
        out = super().forward(x, y)
        torch.set_grad_enabled(False)
        return out
"""
GLOBAL = "import torch\ntorch.set_num_threads(1)\ntorch.set_grad_enabled(False)\ntorch.manual_seed(0)\n"
NO_GRADIENT = "no gradient passes: its output is cut from autograd, and neither its parameters nor its inputs get one"


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench_own.py").write_text(MODULES)
    (tmp_path / "bench_global.py").write_text(GLOBAL + MODULES)


def rows(*fusions: str, mode: str = "train", **options: Any) -> dict[str, Record]:
    given: dict[str, Any] = {"measures": ("cost", "memory"), "backends": ("eager",), "baseline": None} | options
    specs = [CaseSpec(fusion=FusionSpec.parse(f), channels=8, size=(6, 5), batch=2, mode=mode) for f in fusions]
    clock = TickingClock() if "latency" in given["measures"] else None
    return {r.fusion.rpartition(":")[2]: r for r in bench(specs, Options(**given), clock=clock)}


@pytest.mark.parametrize("measures", [("cost",), ("cost", "memory"), ("memory",), ("latency",)])
def test_a_row_that_no_gradient_passes_fails_with_the_reason(measures: tuple[str, ...]) -> None:
    found = rows("bench_own:Plain", "bench_own:NoGrad", "bench_own:Detached", measures=measures)
    assert found["Plain"].status == "ok"
    for name in ("NoGrad", "Detached"):
        assert found[name].status == "failed"
        assert str(found[name].reason).startswith(NO_GRADIENT)
        assert "torch.no_grad()" in str(found[name].reason)
        assert found[name].latency_ms is None


def test_an_output_that_asks_for_a_gradient_and_hands_it_to_nobody_is_no_better() -> None:
    assert "neither its parameters nor its inputs get one" in str(rows("bench_own:OwnLeaf")["OwnLeaf"].reason)


def test_what_is_frozen_on_purpose_is_measured_while_its_inputs_get_a_gradient() -> None:
    found = rows("bench_own:Frozen", "bench_own:FrozenBehindDetach", "add")
    assert found["Frozen"].status == "ok"
    assert found["Frozen"].reason is None
    assert str(found["FrozenBehindDetach"].reason).startswith(
        "no gradient passes: its output is cut from autograd, and none of its inputs get one"
    )
    assert found["add"].status == "ok"


def test_an_input_that_gets_no_gradient_is_said_of_a_row_that_is_measured() -> None:
    record = rows("bench_own:First")["First"]
    assert record.status == "ok"
    assert record.reason == "no gradient reaches y"


def test_a_host_that_trains_past_a_fusion_says_what_gets_no_gradient() -> None:
    host = {"host": HostSpec.parse("resnet:b=1"), "channels": None, "size": (16, 16), "batch": 2, "mode": "train"}
    specs = [CaseSpec(fusion=FusionSpec.parse(f), **host) for f in ("add", "bench_own:NoGrad")]
    plain, cut = bench(specs, Options(measures=("cost",), baseline=None))
    assert plain.reason is None
    assert cut.status == "ok"
    assert "no gradient reaches" in str(cut.reason)
    assert "parameters" in str(cut.reason)


def test_inference_is_measured_whatever_autograd_sees() -> None:
    assert rows("bench_own:NoGrad", mode="infer")["NoGrad"].status == "ok"


def test_a_file_that_changes_the_process_changes_no_number_of_another_row_and_is_named() -> None:
    alone = rows("aff")["aff"]
    beside = rows("bench_global:Plain", "aff")
    assert replace(beside["aff"], first_call_s=None) == replace(alone, first_call_s=None)
    assert beside["aff"].global_state is None
    assert beside["Plain"].global_state == {
        "grad mode": "off instead of on, on import",
        "torch's random numbers": "seeded with 0, on import",
    }
    own = rows("bench_own:Plain")["Plain"]
    assert (beside["Plain"].peak_bytes, beside["Plain"].backward_macs) == (own.peak_bytes, own.backward_macs)


def test_what_a_forward_pass_sets_is_over_before_the_next_row() -> None:
    found = rows("bench_own:Stops", "bench_own:Plain", measures=("cost", "memory", "latency"), budget_s=5.0)
    assert found["Plain"].status == "ok"
    assert found["Plain"].backward_macs == found["Plain"].macs * 2
    assert found["Stops"].global_state == {"grad mode": "off instead of on, while it ran"}
    assert torch.is_grad_enabled()


@pytest.mark.long
def test_a_process_of_its_own_says_so_too() -> None:
    found = rows("bench_global:Plain", isolate="process")["Plain"]
    assert found.status == "ok"
    assert found.isolation is None  # nothing was timed
    assert "grad mode" in (found.global_state or {})


def test_what_files_set_is_one_line_a_file_below_the_results() -> None:
    run = bench_run()
    changed = tuple(replace(r, global_state={"grad mode": "off instead of on, on import"}) for r in run.records)
    (table,) = (t for t in caveats(replace(run, records=changed)) if "whole process" in t.title)
    ((what, *_rest),) = ([text for _, text, _ in row] for row in table.shown_rows())
    assert what == "grad mode: off instead of on, on import"
