"""A real trace: what is in its report, with the plugin and without it."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_trace import cuda_trace
from torch.profiler import ProfilerActivity

from afftool import backends
from afftool.backends import Preparation, Prepared
from afftool.backends.outputs import Outputs
from afftool.build import build_case
from afftool.errors import LoadError
from afftool.formats import renderer
from afftool.measure.time.conditions import Ticks
from afftool.profile import plugin
from afftool.profile.capture import PROFILER_WARMUP, capture
from afftool.profile.diff import diff_report, operator_differences
from afftool.profile.report import DISTURBED, memory_csv, profile_report, sparkline
from afftool.profile.run import OWN, PROFILE, TRACE, Profiled, profile_case, summarise
from afftool.profile.summary import load
from afftool.profile.trace import load_document
from afftool.record import Environment
from afftool.spec import CaseSpec, FusionSpec

STEPS = 3
DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


def test_the_module_table_has_every_module_once_a_step(traced: Profiled) -> None:
    from afftool.fusion import build_fusion

    rows = {row.path: row for row in traced.profile.modules}
    expected = {name or ".": type(m).__name__ for name, m in build_fusion("iaff", channels=8).named_modules()}
    assert {path: row.type for path, row in rows.items()} == expected
    assert {row.calls for row in rows.values()} == {STEPS}
    for path, row in rows.items():
        inside = [r.forward_us for p, r in rows.items() if p.rpartition(".")[0] == (path if path != "." else "") != p]
        if path != ".":
            assert row.forward_us == pytest.approx(row.forward_self_us + sum(inside)), path
        assert row.backward_us > 0, f"{path} has a backward pass"


def test_calls_are_those_of_the_formula(traced: Profiled) -> None:
    calls = {row.name: row.calls / STEPS for row in traced.profile.operators}
    assert calls["aten::conv2d"] == 8, "two passes of two branches of two convolutions"
    assert calls["aten::batch_norm"] == 8
    assert calls["aten::sigmoid"] == 2
    assert calls["ConvolutionBackward0"] == 8
    assert len(traced.profile.steps_us) == STEPS


def test_the_plugins_tables_and_our_own_readers_agree(traced: Profiled) -> None:
    pytest.importorskip("torch_tb_profiler")
    own = summarise(load_document(traced.folder / TRACE), None, case=traced.profile.case, environment={})
    assert traced.profile.tables_from.startswith("torch-tb-profiler ")
    assert own.tables_from == OWN
    theirs = {row.name: row for row in traced.profile.operators}
    assert {row.name for row in own.operators} == set(theirs)
    for row in own.operators:
        assert row.calls == theirs[row.name].calls
        assert row.host_self_us == pytest.approx(theirs[row.name].host_self_us, abs=0.1)
        assert row.host_total_us == pytest.approx(theirs[row.name].host_total_us, abs=0.1)
    assert own.steps_us == pytest.approx(traced.profile.steps_us)
    for ours, plugins in zip(own.categories, traced.profile.categories, strict=True):
        assert (ours.category, ours.step_us) == (plugins.category, pytest.approx(plugins.step_us, abs=0.1))


@pytest.mark.parametrize("format_name", ["md", "csv", "json", "html"])
def test_every_format_names_the_operators_and_modules(traced: Profiled, format_name: str) -> None:
    text = renderer(format_name)(profile_report(traced.profile))
    assert "aten::native" in text.replace("\\_", "_")
    assert "local_att2.4" in text.replace("\\_", "_")
    if format_name == "json":
        assert json.loads(text)["modules"][0]["path"] == "."
    if format_name == "csv":
        rows = list(csv.DictReader(io.StringIO("\n".join(x for x in text.splitlines() if not x.startswith("#")))))
        assert len([r for r in rows if r["table"] == "operator"]) == len(traced.profile.operators)


def test_the_report_works_without_the_plugin_and_says_what_is_missing(
    traced: Profiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "installed", lambda: None)
    document = load_document(traced.folder / TRACE)
    alone = summarise(document, plugin.translate(document), case=traced.profile.case, environment={})
    assert alone.tables_from == OWN
    assert alone.modules == traced.profile.modules
    assert any("torch-tb-profiler is not installed" in note for note in alone.notes)
    assert "Operators" in renderer("md")(profile_report(alone))


def test_a_plugin_that_trips_over_a_trace_does_not_stop_the_report(
    traced: Profiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(translated: dict[str, Any]) -> None:
        raise KeyError("a field of tomorrow")

    monkeypatch.setattr(plugin, "installed", lambda: "0.4.3")
    monkeypatch.setattr(plugin, "read_tables", broken)
    document = load_document(traced.folder / TRACE)
    alone = summarise(document, plugin.translate(document), case=traced.profile.case, environment={})
    assert alone.operators
    assert any("could not read this trace" in note and "a field of tomorrow" in note for note in alone.notes)


def test_a_trace_of_a_gpu_in_which_no_kernel_ran_says_why_that_can_be() -> None:
    seen, blind = cuda_trace(), cuda_trace()
    blind["traceEvents"] = [event for event in blind["traceEvents"] if event.get("cat") not in DEVICE]
    notes = [summarise(t, None, case={"device": "cuda:0"}, environment={}).notes for t in (seen, blind)]
    assert [any("CUPTI" in note for note in found) for found in notes] == [False, True]
    assert not any("CUPTI" in note for note in summarise(blind, None, case={"device": "cpu"}, environment={}).notes)


def test_the_memory_curve_ends_where_it_began_and_is_written_point_by_point(traced: Profiled) -> None:
    (curve,) = traced.profile.memory
    held = [point[1] for point in curve.points]
    assert curve.device == "CPU"
    assert curve.peak_bytes == max(held) > 0
    assert len(memory_csv(traced.profile).splitlines()) == len(curve.points) + 1
    assert "█" in sparkline(curve)


def test_profiling_leaves_no_hook_and_no_change_behind(tmp_path: Path) -> None:
    case = build_case(_small("aff"))
    before = {name: tensor.clone() for name, tensor in case.module.state_dict().items()}
    capture(case, "eager", tmp_path / "trace.json", steps=1, warmup=1)
    assert all(torch.equal(before[name], tensor) for name, tensor in case.module.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in case.module.modules())


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_gpu_is_waited_for_where_a_trace_begins_and_ends_and_not_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    ends_step = torch.profiler.profile.step
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: device and log.append(f"wait for {device}"))
    monkeypatch.setattr(torch.profiler.profile, "step", lambda self: (log.append("step ends"), ends_step(self)))
    monkeypatch.setattr(torch.profiler, "supported_activities", lambda: set(ProfilerActivity.__members__.values()))
    monkeypatch.setattr(backends, "load", lambda name: lambda case: _only_logs(log))
    case = build_case(_small("add"))
    on_second = replace(case, spec=replace(case.spec, device="cuda:1"))
    capture(on_second, "cudagraph", tmp_path / "trace.json", steps=3, warmup=1)
    waited, step = "wait for cuda:1", ["runs", "step ends"]
    before = [entry for n in range(PROFILER_WARMUP) for entry in ("runs", waited, "step ends")]
    assert log == ["runs", waited, *before, *step, *step, "runs", waited, "step ends"]


def _only_logs(log: list[str]) -> Prepared:
    return Prepared(
        backend="cudagraph",
        repeat=lambda times: log.extend(["runs"] * times),
        outputs=lambda seed: Outputs({}),
        preparation=Preparation(first_call_s=0.0),
    )


def test_a_scripted_module_is_a_row_too_though_it_takes_no_hooks(tmp_path: Path) -> None:
    case = build_case(_small("add"))
    scripted = replace(case, module=torch.jit.script(Sum()))
    capture(scripted, "eager", tmp_path / "trace.json", steps=2, warmup=1)
    profile = summarise(load_document(tmp_path / "trace.json"), None, case={"fusion": "sum"}, environment={})
    (row,) = profile.modules
    assert (row.path, row.calls) == (".", 2)


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


def test_two_variants_differ_operator_by_operator(traced: Profiled, traced_addition: Profiled) -> None:
    differences = {d.name: d for d in operator_differences(traced_addition.profile, traced.profile)}
    assert differences["aten::sigmoid"].calls == (0, 2)
    assert differences["aten::sigmoid"].differs == "only in the second"
    first, second = differences["aten::add"].calls
    assert first == 1
    assert second > 1
    whole = sum(row.host_self_us for row in traced.profile.operators) / STEPS
    assert sum(d.us[1] for d in differences.values()) == pytest.approx(whole)
    report = diff_report(traced_addition.profile, traced.profile)
    assert report.title == "add against iaff"
    assert {table.title for table in report.tables} >= {"Operators, a step", "Modules, a step"}


def test_a_variant_against_itself_differs_in_no_call(traced: Profiled) -> None:
    differences = operator_differences(traced.profile, traced.profile)
    assert {d.differs for d in differences} == {"as many calls"}
    assert all(d.change_us == 0 for d in differences)


@pytest.mark.long
def test_a_compiled_module_is_shown_by_its_fused_kernels(tmp_path: Path) -> None:
    notes = capture(build_case(_small("add")), "compile", tmp_path / "trace.json.gz", steps=2, warmup=2).notes
    document = load_document(tmp_path / "trace.json.gz")
    profile = summarise(document, None, case={"fusion": "add", "backend": "compile"}, environment={})
    assert any(row.kind == "fused kernel" and row.calls == 2 for row in profile.operators)
    assert [row.type for row in profile.modules] == ["compiled"]
    assert any("no modules inside" in note for note in notes)


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 99}', '{"schema": 1}', "[]"])
def test_a_stored_profile_that_cannot_be_read_is_refused_with_a_hint(tmp_path: Path, content: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(content)
    with pytest.raises(LoadError) as caught:
        load(path)
    assert caught.value.hint


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("backend", ["eager", "compile", "cudagraph"])
def test_on_a_gpu_kernels_belong_to_operators_and_both_readers_agree(tmp_path: Path, mode: str, backend: str) -> None:
    spec = CaseSpec(fusion=FusionSpec.parse("iaff"), device="cuda:0", mode=mode)  # type: ignore[arg-type]
    trace = tmp_path / TRACE
    capture(build_case(spec), backend, trace, steps=STEPS)
    document = load_document(trace)
    theirs, own = (
        summarise(document, copy, case={"fusion": "iaff"}, environment={})
        for copy in (plugin.translate(document), None)
    )
    assert own.kernels
    assert {k.name: k.calls % STEPS for k in own.kernels if k.calls % STEPS} == {}, "no step's but the traced ones'"
    assert {k.name: k.calls for k in own.kernels} == {k.name: k.calls for k in theirs.kernels}
    assert len(own.steps_us) == STEPS
    assert own.gaps[0].where.startswith("GPU")
    kernel = next(row.step_us for row in theirs.categories if row.category == "Kernel")
    assert 0 < kernel <= theirs.step_us
    if backend == "eager":
        whole = sum(k.total_us for k in own.kernels)
        assert sum(row.device_self_us for row in own.operators) >= 0.95 * whole
        assert {r.name: round(r.device_self_us) for r in own.operators} == {
            r.name: round(r.device_self_us) for r in theirs.operators
        }


def test_a_profile_judges_its_machine_and_says_so_in_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks at /proc are made up: of ten seconds on two cores, others had one whole core."""
    hertz = os.sysconf("SC_CLK_TCK")
    looks = iter([Ticks(0, 0, 0, 0, 0.0), Ticks(20 * hertz, 0, 10 * hertz, 0, 10.0)])
    monkeypatch.setattr("afftool.measure.time.conditions.read_ticks", lambda pids: next(looks))
    monkeypatch.setattr("afftool.profile.run.LEAST_WATCH_S", 0.0)
    environment = Environment(afftool="test", python="3")
    done = profile_case(_small("add"), "eager", tmp_path, formats=["md"], steps=1, environment=environment)
    assert set(done.profile.instability) == {"busy machine"}
    assert load(done.folder / PROFILE) == done.profile
    report = profile_report(done.profile)
    assert "disturbed by a busy machine: other processes kept 1 of" in dict(report.facts)["Traced"]
    assert "--threads auto" in " ".join(report.notes)
    assert "disturbed by a busy machine" in dict(diff_report(done.profile, done.profile).facts)["First: Traced"]


def test_a_profile_of_a_quiet_machine_says_nothing_of_it(traced: Profiled) -> None:
    quiet = replace(traced.profile, instability={})
    assert "disturbed" not in dict(profile_report(quiet).facts)["Traced"]
    assert DISTURBED not in profile_report(quiet).notes


def _small(fusion: str) -> CaseSpec:
    return CaseSpec(fusion=FusionSpec.parse(fusion), channels=8, size=(6, 6), batch=2)
