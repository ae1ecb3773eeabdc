"""A kernel that fails takes the device from its whole process; the bench goes on in others. A GPU plays itself."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from fake_time import TickingClock

import afftool
from afftool import backends, catalog
from afftool.backends.workload import devices_random_state_kept
from afftool.bench import Options, bench
from afftool.bench.entry import EagerOutputs, enter
from afftool.bench.rows import Row, blank
from afftool.build import build_case
from afftool.errors import Rejected
from afftool.measure.time.conditions import uses_gpu
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec

pytestmark = pytest.mark.usefixtures("hurried")

ASSERTED = "CUDA error: device-side assert triggered"
WHEN = {"while it is made ready": "planted:TakesDevice", "while it is timed": "planted:TakesDevice:after=40"}


def case(fusion: str) -> CaseSpec:
    return CaseSpec(fusion=FusionSpec.parse(fusion), channels=8, size=(6, 5), batch=2)


def measured(*fusions: str, **options: Any) -> dict[str, Record]:
    given = {"measures": ("latency",), "baseline": None, "allocator": "kept", "precision": 0.9, "budget_s": 60.0}
    given |= options
    records = list(bench([case(fusion) for fusion in fusions], Options(**given)))
    assert [record.fusion for record in records].count(records[0].fusion) == 1
    return {record.fusion: record for record in records}


@pytest.fixture(autouse=True)
def _played_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted.OnDevice, "lost", False)
    monkeypatch.setattr("afftool.bench.place.answers", lambda device: not planted.OnDevice.lost, raising=False)


@pytest.mark.long
@pytest.mark.parametrize("taker", WHEN.values(), ids=WHEN)
def test_who_takes_the_device_fails_and_those_before_and_after_it_are_measured_in_processes_of_their_own(
    taker: str,
) -> None:
    baseline = FusionSpec.parse("planted:OnDevice")
    measures = ("latency", "energy")
    records = measured("planted:OnDevice", taker, "planted:OnDeviceToo", measures=measures, baseline=baseline)
    assert set(records) == {"planted:OnDevice", taker, "planted:OnDeviceToo"}
    assert records[taker].status == "failed"
    assert ASSERTED in str(records[taker].reason)
    assert records[taker].latency_ms is None
    for name in ("planted:OnDevice", "planted:OnDeviceToo"):
        assert (records[name].status, records[name].isolation) == ("ok", "process"), records[name].reason
        assert records[name].latency_ratio is not None
        assert str(records[name].reason).count("no energy") == 1, "getting ready again starts from nothing"


@pytest.mark.long
def test_times_that_were_taken_before_stay_and_later_heats_are_compared_with_the_same_baseline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("afftool.bench.run.HEAT_ROWS", 3)
    baseline = FusionSpec.parse("planted:OnDevice")
    taker = WHEN["while it is timed"]
    records = measured("planted:OnDevice", "add", "se", taker, "planted:OnDeviceToo", baseline=baseline)
    assert {name: record.isolation for name, record in records.items()} == {
        "planted:OnDevice": "none",
        "add": "none",
        "se": "none",
        taker: None,
        "planted:OnDeviceToo": "process",
    }
    assert records["planted:OnDevice"].latency_ratio == 1.0
    assert all(record.latency_ratio for name, record in records.items() if name != taker)


def test_the_next_group_never_asks_this_process_for_the_device() -> None:
    smaller = dataclasses.replace(case("planted:OnDevice"), batch=1)
    taker, other = bench([case("planted:TakesDevice"), smaller], Options(measures=("memory",), baseline=None))
    assert (taker.status, other.status) == ("failed", "ok")
    assert other.peak_bytes


def test_what_did_not_fit_beside_its_neighbours_while_it_was_timed_is_tried_once_more_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planted.OutOfMemoryOnce, "failed", False)
    records = measured("add", "planted:OutOfMemoryOnce:after=40")
    assert {record.status for record in records.values()} == {"ok"}


def raising(*_: Any, **__: Any) -> Any:
    raise torch.AcceleratorError(ASSERTED)


def test_a_clean_up_that_fails_ends_no_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afftool.bench.run.forget_compiled", raising)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", raising)
    monkeypatch.setitem(catalog.BACKENDS, "compile-wrong", catalog.Backend("planted:wrong", "planted"))
    options = Options(measures=("latency",), backends=("compile-wrong", "eager"), baseline=None, allocator="kept")
    records = list(bench([case("add")], options, clock=TickingClock()))
    assert [record.status for record in records] == ["failed", "ok"]


def test_nothing_is_freed_while_the_exception_still_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[object] = []
    monkeypatch.setattr("afftool.bench.place.free_memory", lambda: handled.append(sys.exc_info()[1]))
    (record,) = bench([case("planted:Raises")], Options(measures=("latency",), baseline=None))
    assert record.status == "failed"
    assert handled == [None]


def test_what_was_wrong_with_a_row_is_told_though_letting_go_of_it_fails_too(monkeypatch: pytest.MonkeyPatch) -> None:
    built = build_case(case("add"))
    prepared = planted.wrong(built)
    object.__setattr__(prepared, "close", raising)
    monkeypatch.setattr(backends, "load", lambda name: lambda case: prepared)
    with pytest.raises(Rejected, match="differs from eager"):
        enter(
            built,
            blank(built.spec, "wrong"),
            eager=EagerOutputs(built),
            measures=("latency",),
            clock=TickingClock(),
        )


def test_a_row_lets_go_of_its_case_though_that_fails() -> None:
    row = Row(case("add"), blank(case("add"), "eager"))
    built = build_case(row.spec)
    row.enter(enter(built, row.record, eager=EagerOutputs(built), measures=("memory",), clock=TickingClock()))
    assert row.entrant
    object.__setattr__(row.entrant, "close", raising)
    row.close()
    assert row.entrant is None


@pytest.fixture
def _states(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose random state can be read, and not be put back."""
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.zeros(16, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", raising)


@pytest.mark.usefixtures("_states")
def test_a_random_state_that_cannot_be_put_back_hides_no_error_and_is_none() -> None:
    @devices_random_state_kept("cuda:0")
    def fail() -> None:
        torch.rand(1)
        raise ValueError("the cause")

    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="the cause"):
        fail()
    with devices_random_state_kept("cuda:0", "cpu"):
        torch.rand(1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_device_that_does_not_even_tell_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._C, "_cuda_hasPrimaryContext", raising, raising=False)
    assert uses_gpu("cuda:0")


FROM = os.pathsep.join([str(Path(planted.__file__).parent), str(Path(afftool.__file__).parents[1])])
"""Rows in processes of their own do not look for afftool in the current folder, where it may lie uninstalled."""


@pytest.mark.gpu
@pytest.mark.parametrize("taker", WHEN.values(), ids=WHEN)
def test_a_failed_assertion_on_a_gpu_fails_its_row_and_the_others_are_measured(taker: str, tmp_path: Path) -> None:
    words = ["--fusion", f"{taker},se", "--channels", "8", "--size", "6", "--batch", "2", "--device", "cuda:0"]
    words += ["--backend", "eager", "--isolate", "none", "-m", "latency", "--precision", "0.9", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "afftool", "bench", *words, "--store", str(tmp_path / "runs.sqlite")],
        env=os.environ | {"PYTHONPATH": FROM},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    records = {record["fusion"]: record for record in json.loads(done.stdout)["records"]}
    assert set(records) == {"add", taker, "se"}
    assert records[taker]["status"] == "failed"
    assert "device-side assert" in records[taker]["reason"], done.stderr
    for name in ("add", "se"):
        assert records[name]["status"] == "ok", records[name]["reason"]
        assert records[name]["isolation"] == "process"
        assert records[name]["latency_ratio"]
    assert done.returncode == 0, done.stderr
