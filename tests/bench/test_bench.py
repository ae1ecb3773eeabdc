import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_time import TickingClock

from afftool import catalog
from afftool.bench import Options, bench
from afftool.errors import SpecError, UnknownName
from afftool.measure.time.race import FEWEST_ROUNDS
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec, HostSpec
from afftool.stats import paired_ratio

pytestmark = pytest.mark.usefixtures("hurried")

QUICK = {"measures": ("latency",), "budget_s": 10.0}
REAL_TIME = {"clock": None, "precision": 0.9, "budget_s": 60.0, "allocator": "kept"}  # stops after the fewest rounds


def case(fusion: str, **fields: Any) -> CaseSpec:
    given = {"channels": 8, "size": (6, 5), "batch": 2} | fields
    return CaseSpec(fusion=FusionSpec.parse(fusion), **given)


def measured(*fusions: str, mode: str = "infer", **options: Any) -> dict[tuple[str, str | None], Record]:
    given = QUICK | {"clock": TickingClock()} | options
    besides = {name: given.pop(name) for name in ("clock", "follow") if name in given}
    records = list(bench([case(f, mode=mode) for f in fusions], Options(**given), **besides))
    assert len({(r.fusion, r.backend) for r in records}) == len(records)
    return {(r.fusion, r.backend): r for r in records}


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("wrong", "recompiling"):
        monkeypatch.setitem(catalog.BACKENDS, name, catalog.Backend(f"planted:{name}", "planted"))
    return iter(())


def test_the_baseline_is_benched_along_and_every_row_has_its_ratio_from_shared_rounds() -> None:
    records = measured("aff", "se", **REAL_TIME)
    assert {name for name, _ in records} == {"add", "aff", "se"}
    base, aff = records["add", "eager"], records["aff", "eager"]
    assert base.latency_ratio == 1.0
    ratio = paired_ratio(aff.samples_ms, base.samples_ms)
    assert ratio is not None
    assert (aff.latency_ratio, aff.latency_ratio_low, aff.latency_ratio_high) == pytest.approx(
        (ratio.estimate, ratio.low, ratio.high)
    )
    assert aff.baseline == "add"
    assert ratio.estimate > 1  # an attention costs more than a sum


def test_a_timed_record_is_complete() -> None:
    record = measured("iaff", mode="train")["iaff", "eager"]
    assert record.status == "ok"
    for name in (
        "latency_ms", "latency_low_ms", "latency_high_ms", "latency_iqr_ms", "forward_ms", "backward_ms",
        "optimizer_ms", "throughput_per_s", "first_call_s", "warmup_s", "stopped", "steps_per_sample",
    ):  # fmt: skip
        assert getattr(record, name) is not None, name
    assert record.samples == len(record.samples_ms) == FEWEST_ROUNDS
    assert record.stopped == "precision"
    assert (record.cache, record.isolation, record.error_vs_eager) == ("warm", "none", 0.0)
    assert (record.channels, record.depth, record.height, record.width) == (8, None, 6, 5)
    assert record.identity == case("iaff", mode="train").identity
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


def test_energy_that_nothing_counts_has_a_reason_beside_what_else_was_measured() -> None:
    record = measured("aff", measures=("memory", "energy"), baseline=None)["aff", "eager"]
    assert (record.status, record.energy_j) == ("ok", None)
    assert record.peak_bytes
    assert "no energy: nothing counts energy on the CPU" in str(record.reason)


def test_a_measure_of_a_prepared_case_is_one_line_in_the_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(catalog.MEASURES, "joules", catalog.Measure("planted", "planted:one_joule"))
    record = measured("aff", measures=("joules",), baseline=None)["aff", "eager"]
    assert (record.status, record.energy_j, record.latency_ms) == ("ok", 1.0, None)


def test_two_things_that_are_missing_have_both_reasons() -> None:
    measures = ("cost", "latency", "energy")
    record = measured("planted:NotOnMeta", measures=measures, baseline=None)["planted:NotOnMeta", "eager"]
    assert record.latency_ms
    assert "not counted" in str(record.reason)
    assert "no energy" in str(record.reason)


@pytest.mark.parametrize("measure", ["memory", "energy"])
def test_a_wrong_result_has_no_number_of_any_kind(measure: str) -> None:
    record = measured("aff", backends=("wrong",), measures=(measure,), baseline=None)["aff", "wrong"]
    assert record.status == "failed"
    assert record.reason
    assert "eager" in record.reason
    assert (record.peak_bytes, record.energy_j, record.latency_ms) == (None, None, None)


def test_without_a_baseline_nothing_is_added() -> None:
    records = measured("aff", baseline=None)
    assert list(records) == [("aff", "eager")]
    assert records["aff", "eager"].latency_ratio is None


def test_the_baseline_takes_the_dimensions_of_its_group() -> None:
    spec = CaseSpec(fusion=FusionSpec.parse("aff:ndim=1:inputs=3"), channels=8, size=(9,), batch=2)
    base, aff = bench([spec], Options(**QUICK), clock=TickingClock())
    assert base.fusion == "add:ndim=1:inputs=3"
    assert (aff.depth, aff.height, aff.width) == (None, None, 9)
    assert aff.baseline == base.fusion


def test_cases_that_differ_in_more_than_the_fusion_are_compared_apart() -> None:
    cases = [case("aff"), case("aff", batch=3)]
    records = list(bench(cases, Options(**QUICK), clock=TickingClock()))
    assert [(r.fusion, r.batch) for r in records] == [("add", 2), ("aff", 2), ("add", 3), ("aff", 3)]


def test_cost_alone_needs_no_real_memory_and_one_row_a_case() -> None:
    huge = CaseSpec(fusion=FusionSpec.parse("aff"), channels=64, size=(4096, 4096), batch=1024)
    base, aff = bench([huge], Options(measures=("cost",), backends=("eager", "compile")))
    assert (base.fusion, base.backend, aff.backend) == ("add", None, None)
    assert aff.params
    assert aff.macs
    assert aff.latency_ms is None


def test_a_host_is_benched_with_its_scenario() -> None:
    spec = CaseSpec(
        fusion=FusionSpec.parse("aff"), host=HostSpec.parse("resnet:b=1"), channels=None, size=(8, 8), batch=2
    )
    (record,) = bench([spec], Options(measures=("cost",), baseline=None))
    assert record.scenario == "short-skip"
    assert record.host == "resnet:b=1"


def test_a_backend_that_disagrees_with_eager_is_a_failed_row_without_a_time() -> None:
    records = measured("aff", backends=("eager", "wrong"))
    bad = records["aff", "wrong"]
    assert bad.status == "failed"
    assert "differs from eager: output" in str(bad.reason)
    assert bad.latency_ms is None
    assert bad.samples_ms == ()
    assert records["aff", "eager"].status == "ok"


def test_a_recompilation_while_timed_fails_the_row_and_only_it() -> None:
    records = measured("aff", backends=("eager", "recompiling"))
    bad = records["aff", "recompiling"]
    assert bad.status == "failed"
    assert "compiled again while it was timed" in str(bad.reason)
    assert bad.latency_ms is None
    assert records["aff", "eager"].status == "ok"


def test_whatever_goes_wrong_with_one_fusion_the_others_are_measured() -> None:
    records = measured("planted:Raises", "planted:OutOfMemory", "aff", measures=("cost", "latency"))
    raises, memory = records["planted:Raises", "eager"], records["planted:OutOfMemory", "eager"]
    assert raises.status == "failed"
    assert "ValueError: nothing fits" in str(raises.reason)
    assert "planted.py" in str(raises.reason)
    assert raises.params == 8 * 8 + 8 + 16
    assert memory.status == "oom"
    assert records["aff", "eager"].status == "ok"


EXITS = ("planted:Exits:after=0", "planted:Exits:after=40")
"""End the program: while it is made ready, and while it is timed."""


def test_a_module_that_ends_the_program_ends_its_own_row_only() -> None:
    records = measured(*EXITS, "planted:Plain")
    for name in EXITS:
        assert records[name, "eager"].status == "failed"
        assert "SystemExit" in str(records[name, "eager"].reason)
    assert records["planted:Plain", "eager"].status == "ok"


def test_a_module_that_ends_the_program_while_it_is_counted_or_its_memory_is_read_fails_its_row() -> None:
    records = measured("planted:ExitsAnywhere", "aff", measures=("cost", "memory"))
    assert records["planted:ExitsAnywhere", "eager"].status == "failed"
    assert records["aff", "eager"].peak_bytes


def test_ctrl_c_is_nobodys_failed_row() -> None:
    with pytest.raises(KeyboardInterrupt):
        measured("planted:Interrupts")


def test_a_module_that_cannot_be_counted_is_timed_all_the_same() -> None:
    records = measured("planted:NotOnMeta", "planted:RaisesEverywhere", measures=("cost", "latency"))
    timed, broken = records["planted:NotOnMeta", "eager"], records["planted:RaisesEverywhere", "eager"]
    assert (timed.status, timed.params) == ("ok", None)
    assert timed.latency_ms
    assert "not counted" in str(timed.reason)
    assert broken.status == "failed"
    assert "RuntimeError: no such thing" in str(broken.reason)


def test_what_this_machine_cannot_run_is_skipped_with_what_to_do() -> None:
    if torch.cuda.is_available():
        pytest.skip("the cases run on the CPU, yet here is a GPU")
    records = measured("aff", backends=("eager", "cudagraph", "compile-reduce-overhead"))
    for backend in ("cudagraph", "compile-reduce-overhead"):
        assert records["aff", backend].status == "skipped"
        assert "--device cuda" in str(records["aff", backend].reason)
    assert records["aff", "eager"].status == "ok"


def test_random_state_and_global_settings_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    before, threads, gradients = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    records = measured("planted:Plain", mode="train", measures=("cost", "latency", "memory"))
    assert records["planted:Plain", "eager"].status == "ok"
    assert torch.equal(before, torch.get_rng_state())
    assert (threads, gradients) == (torch.get_num_threads(), torch.is_grad_enabled())


def test_memory_without_latency_is_read_and_not_timed() -> None:
    record = measured("aff", mode="train", measures=("memory",))["aff", "eager"]
    assert record.peak_bytes
    assert record.saved_bytes
    assert record.latency_ms is None


def test_large_groups_run_in_heats_and_every_row_still_has_a_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afftool.bench.run.HEAT_ROWS", 3)
    records = measured("aff", "se", "sk", "gau", "highway")
    assert len(records) == 6
    assert all(record.latency_ratio is not None for record in records.values())


def test_progress_counts_every_row_once_and_says_what_is_done() -> None:
    told: list[tuple[float, float, str]] = []
    records = measured("aff", "se", follow=lambda *now: told.append(now))
    assert told[-1][:2] == (len(records), 3) == (3, 3)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert any(doing.startswith("timing add, aff, se") for _, _, doing in told)


def test_cold_caches_are_timed_step_by_step() -> None:
    record = measured("aff", cache="cold")["aff", "eager"]
    assert record.cache == "cold"
    assert record.latency_ms


def test_unknown_names_and_bad_numbers_are_refused_before_anything_runs() -> None:
    with pytest.raises(UnknownName, match="eagr"):
        Options(backends=("eagr",))
    with pytest.raises(UnknownName, match="latncy"):
        Options(measures=("latncy",))
    for wrong in (
        {"budget_s": 0.0},
        {"budget_s": math.nan},
        {"budget_s": math.inf},
        {"precision": 1.0},
        {"precision": math.nan},
    ):
        with pytest.raises(SpecError, match=r"--budget must be above 0|--precision must be between 0 and 1"):
            Options(**wrong)


@pytest.mark.long
def test_a_process_of_its_own_for_each_row_gives_ratios_too_and_survives_a_crash_and_an_exit() -> None:
    records = measured("planted:Plain", "planted:Dies", *EXITS, isolate="process", **REAL_TIME)
    good, dead = records["planted:Plain", "eager"], records["planted:Dies", "eager"]
    assert good.status == "ok"
    assert good.isolation == "process"
    assert good.latency_ratio is not None
    assert dead.status == "failed"
    assert "SIGSEGV" in str(dead.reason)
    for name in EXITS:
        assert records[name, "eager"].status == "failed"
        assert "SystemExit" in str(records[name, "eager"].reason)


def test_a_file_of_the_users_with_a_name_of_pythons_own_does_not_stop_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("inspect", "queue"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('this is not the standard library')\n")
    monkeypatch.chdir(tmp_path)
    records = measured("aff", baseline=None, isolate="process", **REAL_TIME)
    assert records["aff", "eager"].status == "ok", records["aff", "eager"].reason


def test_children_end_when_the_bench_is_interrupted(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = tmp_path / "interrupted.py"
    script.write_text(
        "from pathlib import Path\n"
        "from afftool import bench as module\n"
        "from afftool.bench.child import Isolated\n"
        "from afftool.spec import CaseSpec, FusionSpec\n"
        "spec = CaseSpec(fusion=FusionSpec.parse('add'), channels=4, size=(4, 4), batch=1)\n"
        "def sample(self, steps):\n"
        f"    Path({str(pids)!r}).write_text(str(self.pid))\n"
        "    raise KeyboardInterrupt\n"
        "Isolated.sample = sample\n"
        "options = module.Options(measures=('latency',), isolate='process', baseline=None)\n"
        "list(module.bench([spec], options))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert not _alive(int(pids.read_text()))


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from afftool.bench.child import Isolated, Patience\n"
        "from afftool.spec import CaseSpec, FusionSpec\n"
        "spec = CaseSpec(fusion=FusionSpec.parse('add'), channels=4, size=(4, 4), batch=1)\n"
        "from afftool.bench.rows import blank\n"
        "child = Isolated(Patience(600))\n"
        "child.enter(spec, blank(spec, 'eager'), measures=('latency',), cache='warm', threads=1)\n"
        f"Path({str(pids)!r}).write_text(str(child.pid))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    child = int(pids.read_text())
    end = time.monotonic() + 30
    while _alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, FileNotFoundError):
        return False


def test_a_spec_survives_the_way_into_another_process() -> None:
    for spec in (
        case("aff:reduction=2:gain=2", mode="train", dtype="bfloat16", memory_format="channels_last"),
        CaseSpec(
            fusion=FusionSpec.parse("planted:Plain"), host=HostSpec.parse("resnet:b=2"), channels=None, size=(8, 8)
        ),
        dataclasses.replace(case("add"), seed=3),
    ):
        there = CaseSpec.from_fields(json.loads(json.dumps(spec.fields())))
        assert there == spec
        assert there.identity == spec.identity
