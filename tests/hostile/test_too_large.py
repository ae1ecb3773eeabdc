"""What cannot fit into memory is a row that says so before any of it is taken; what may fit is never refused."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from afftool import bench as benches
from afftool import room
from afftool.bench import Options, bench
from afftool.build import build_case
from afftool.catalog import FUSIONS
from afftool.errors import LoadError, TooLarge
from afftool.failure import FailedError, Failure
from afftool.inspect.subject import subject_of
from afftool.measure.memory.peak import measure
from afftool.profile.run import profile_case
from afftool.record import Environment
from afftool.spec import CaseSpec, FusionSpec, HostSpec
from afftool.study.network import build_network

pytestmark = pytest.mark.usefixtures("hurried")

QUICK: dict[str, Any] = {"precision": 0.9, "budget_s": 60.0, "processes": 1}
OWN = """
import numpy
import torch
from torch import nn

class Greedy(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.table = numpy.zeros(1 << 55)

    def forward(self, x, y):
        return x + y

class LooksAtValues(nn.Module):
    def forward(self, x, y):
        return x + y if float(x.sum()) > 0 else y
"""


def case(fusion: str = "aff", **fields: Any) -> CaseSpec:
    return CaseSpec(fusion=FusionSpec.parse(fusion), **{"channels": 16, "size": (6, 5), "batch": 2} | fields)


def huge(fusion: str = "aff", **fields: Any) -> CaseSpec:
    return case(fusion, size=(10**6, 10**6), **fields)


def peak_of_this_process() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.fixture
def nothing_is_allocated() -> Any:
    before = peak_of_this_process()
    yield
    assert peak_of_this_process() - before < 2**29


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile_sizes.py").write_text(OWN)
    return "hostile_sizes"


def free(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: nbytes)
    monkeypatch.setattr(room, "freed_and_held_bytes", lambda: 0)


@pytest.mark.usefixtures("nothing_is_allocated")
@pytest.mark.parametrize(
    "options",
    [{"measures": ("cost", "memory")}, {"measures": ("cost", "memory"), "isolate": "process"}, {"allocator": "kept"}],
)
def test_a_size_that_cannot_fit_is_a_row_that_says_so_and_the_others_are_measured(options: dict[str, Any]) -> None:
    rows = list(bench([case(), huge()], Options(**QUICK | options, baseline=None)))
    assert [row.status for row in rows] == ["ok", "oom"]
    reason = str(rows[1].reason)
    assert reason.startswith("aff under eager needs at least 640 TB (inputs 256 TB, weights ")
    assert "are free on cpu (hint: a smaller --batch, --size or --channels needs less)" in reason
    assert rows[1].params == rows[0].params, "what needs no memory is counted all the same"
    assert rows[1].latency_ms is None


@pytest.mark.usefixtures("nothing_is_allocated")
def test_weights_that_cannot_fit_are_told_before_they_are_made() -> None:
    (row,) = bench([case(channels=10**7)], Options(**QUICK, baseline=None))
    assert row.status == "oom"
    assert "weights 400 TB" in str(row.reason)


@pytest.mark.usefixtures("nothing_is_allocated")
def test_sizes_beyond_64_bits_are_too_large_like_any() -> None:
    (row,) = bench([case(channels=10**9, size=(2**31 - 1, 2**31 - 1))], Options(**QUICK, baseline=None))
    assert row.status == "oom"
    assert "needs at least" in str(row.reason)


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_a_step_needs_at_the_least_is_never_more_than_what_it_took(fusion: str, mode: str) -> None:
    spec = case(fusion, channels=64, mode=mode)
    assert 0 < room.least_of_step(spec).nbytes <= measure(build_case(spec)).peak_bytes


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_same_holds_of_a_host(mode: str) -> None:
    host = {"host": HostSpec.parse("resnet:b=1"), "channels": None, "size": (16, 16)}
    spec = case("aff", **host, mode=mode)
    assert 0 < room.least_of_step(spec).nbytes <= measure(build_case(spec)).peak_bytes


def test_a_case_that_just_fits_is_measured_and_one_byte_less_is_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = case("add", channels=64, size=(64, 64))
    need = room.least_of_both(spec).nbytes
    once: dict[str, Any] = {"measures": ("memory",), "baseline": None}
    free(monkeypatch, need)
    assert next(bench([spec], Options(**once))).status == "ok"
    free(monkeypatch, need - 1)
    assert next(bench([spec], Options(**once))).status == "oom"


def test_memory_that_is_freed_and_kept_by_this_process_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: 10)
    monkeypatch.setattr(room, "freed_and_held_bytes", lambda: 30)
    assert room.free_bytes("cpu") == 40
    monkeypatch.setattr(room, "available_bytes", lambda: None)
    assert room.free_bytes("cpu") is None


def test_where_nobody_tells_what_is_free_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "available_bytes", lambda: None)
    room.check_room(room.least_of_both(huge()), "cpu", what="it")


def test_a_heat_holds_no_more_rows_than_fit_and_its_baseline_is_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [case(f"aff:reduction={r}") for r in (1, 2, 4, 8)]
    need = max(room.least_of_both(spec).nbytes for spec in specs)
    for rows, others in ((2, [1, 1, 1, 1]), (3, [2, 2]), (1, [1, 1, 1, 1]), (100, [4])):
        free(monkeypatch, rows * need)
        planned = benches.run._planned(specs, Options(), None, benches.run.nobody)
        heats = list(planned._heats(planned.groups[0]))
        assert [len(heat) for heat in heats] == [others[0] + 1, *others[1:]], "the baseline is listed in the first"


@pytest.mark.long
def test_processes_that_do_not_fit_beside_each_other_run_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time: each heat has the baseline and one other, so every row keeps its ratio."""
    specs = [case(f"aff:reduction={r}", channels=64, size=(64, 64)) for r in (2, 4)]
    need = max(room.least_of_both(spec).nbytes for spec in specs)
    free(monkeypatch, 2 * need + 1)
    started: list[int] = []
    fresh = benches.run.Place.fresh

    def watched(self: Any, rows: Any) -> Any:
        started.append(len(rows))
        return fresh(self, rows)

    monkeypatch.setattr(benches.run.Place, "fresh", watched)
    rows = list(bench(specs, Options(**QUICK, measures=("latency",))))
    assert [row.status for row in rows] == ["ok"] * 3, [row.reason for row in rows]
    assert started == [2, 2]
    assert all(row.latency_ratio is not None for row in rows)


def test_a_gpu_is_asked_for_its_own_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    assert room.free_bytes("cuda:0") == 130, "what the caching allocator holds unused can be used"
    with pytest.raises(TooLarge, match=r"it needs at least .*, 130 B are free on cuda:0"):
        room.check_room(room.least_of_case(case(device="cuda:0")), "cuda:0", what="it")


def test_a_gpu_that_does_not_answer_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(device: str) -> Any:
        raise RuntimeError("no CUDA")

    monkeypatch.setattr(torch.cuda, "mem_get_info", gone)
    assert room.free_bytes("cuda:0") is None


def test_a_constructor_of_ones_own_that_runs_out_of_memory_is_a_row_and_no_end(own: str) -> None:
    how = Options(measures=("cost", "memory"), baseline=None)
    rows = {row.fusion: row for row in bench([case(f"{own}:Greedy"), case("add")], how)}
    assert rows["add"].status == "ok"
    assert rows[f"{own}:Greedy"].status == "oom"
    assert "Unable to allocate" in str(rows[f"{own}:Greedy"].reason)


@pytest.mark.usefixtures("nothing_is_allocated")
def test_a_module_that_needs_values_is_not_counted_on_tensors_that_cannot_fit(own: str) -> None:
    (row,) = bench([huge(f"{own}:LooksAtValues")], Options(measures=("cost",), baseline=None))
    assert row.status == "oom"
    assert "counted on real tensors, needs at least 256 TB (inputs 256 TB)" in str(row.reason)


@pytest.mark.usefixtures("nothing_is_allocated")
def test_profile_inspect_and_a_study_refuse_the_same(tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="aff under eager needs at least"):
        profile_case(huge(), "eager", tmp_path, formats=[], steps=1, environment=Environment(**environment()))
    with pytest.raises(TooLarge, match="aff needs at least"):
        subject_of(FusionSpec.parse("aff"), channels=8, size=(10**6, 10**6), batch=8)
    with pytest.raises(TooLarge, match="aff in resnet:width=32768 needs at least"):
        build_network(HostSpec.parse("resnet:width=32768"), FusionSpec.parse("aff"), seed=0)
    assert not list(tmp_path.iterdir())


def environment() -> dict[str, Any]:
    return {"afftool": "0", "python": "3", "torch": "2"}


def test_an_error_of_ours_tells_the_memory_that_ran_out_behind_it() -> None:
    error = LoadError("it could not be built")
    assert Failure.of(error).status == "failed"
    error.__cause__ = MemoryError("none left")
    assert Failure.of(error).status == "oom"


@pytest.mark.long
def test_the_command_ends_as_for_other_rows_that_failed(place: Any) -> None:
    done = place.run("bench", "--fusion", "aff", "--size", "1000000", "--backend", "eager", "--json", timeout_s=100)
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
    assert "nothing could be measured" in done.stderr
    assert done.stdout.count('"oom"') == 2, done.stdout


def test_the_gate_says_so_of_a_case_that_cannot_fit_and_writes_no_baseline(refuses: Callable[..., str]) -> None:
    said = refuses(2, "check", "--fusion", "aff", "--size", "1000000", "-m", "params", "--write-baseline")
    assert "needs at least" in said
    assert "are free on cpu" in said
