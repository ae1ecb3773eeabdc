"""Inputs are as a network gives them: they may be written into, and are put back before each step."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import writing
from fake_time import FakeClock, TickingClock
from torch import nn

from afftool import backends
from afftool.backends import Preparation, Prepared
from afftool.backends import compile as compiled
from afftool.backends.outputs import Outputs
from afftool.backends.workload import Workload
from afftool.bench import Options, bench
from afftool.build import build_case
from afftool.gate.exact import count_graph
from afftool.gate.stopwatch import Stopwatch
from afftool.inputs import as_in_network, input_names
from afftool.measure.cost.count import count
from afftool.measure.memory import peak as memory
from afftool.measure.time.contestant import Timed
from afftool.profile.capture import capture
from afftool.record import Record
from afftool.report.caveats import caveats
from afftool.report.lines import one_line
from afftool.spec import CaseSpec, FusionSpec, HostSpec

pytestmark = pytest.mark.usefixtures("hurried")

N, C, H, W = 2, 4, 5, 3
MAP_BYTES = 4 * N * C * H * W
MODES = pytest.mark.parametrize("mode", ["infer", "train"])
WRITTEN = {
    "Plain": {},
    "EditsInside": {},
    "Activates": {1: "y"},
    "Doubling": {0: "x"},
    "Both": {0: "maps[0]", 1: "maps[1]"},
    "PastAutograd": {1: "y"},
    "Keeps": {0: "x"},
    "Squeezes": {0: "x"},
}


def spec(name: str, **fields: Any) -> CaseSpec:
    given = {"channels": C, "size": (H, W), "batch": N} | fields
    return CaseSpec(fusion=FusionSpec.parse(f"writing:{name}"), **given)


def benched(name: str, *, options: dict[str, Any] | None = None, **fields: Any) -> Record:
    given = {"measures": ("cost", "latency", "memory"), "baseline": None, "budget_s": 5.0} | (options or {})
    [record] = bench([spec(name, **fields)], Options(**given), clock=TickingClock())
    return record


def network(fusion: str, host: str, mode: str) -> CaseSpec:
    return spec(fusion, host=HostSpec.parse(host), channels=None, size=(8, 8), mode=mode)


@MODES
@pytest.mark.parametrize("name", WRITTEN)
def test_the_inputs_that_a_module_writes_into_are_found_and_no_others(name: str, mode: str) -> None:
    assert build_case(spec(name, mode=mode)).written == WRITTEN[name]


@MODES
def test_what_fusions_write_into_the_maps_of_their_host_is_no_matter(mode: str) -> None:
    case = build_case(network("Doubling", "writing:Net", mode))
    assert case.written == {}
    Workload(case).run(2)


@MODES
def test_a_host_that_writes_into_its_images_gets_them_anew_each_step(mode: str) -> None:
    case = build_case(network("Plain", "writing:Net:normalises=True", mode))
    assert case.written == {0: "image"}
    work = Workload(case)
    work.run(3)
    assert torch.equal(work.inputs[0], case.inputs[0] - 0.5)


def test_finding_it_out_changes_neither_the_case_nor_the_random_state() -> None:
    case = build_case(spec("Doubling"))
    before, state = [x.clone() for x in case.inputs], torch.get_rng_state()
    assert case.written
    assert all(map(torch.equal, case.inputs, before))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["Activates", "Doubling", "Both", "Keeps", "Squeezes"])
def test_in_training_a_module_that_writes_gets_the_gradients_that_a_network_gets(name: str) -> None:
    case = build_case(spec(name, mode="train"))
    work = Workload(case)
    work.run(3)
    leaves = [x.clone().requires_grad_() for x in case.inputs]
    out = case.module(*(x * 1 for x in leaves))
    out.backward(work.cotangents[0])
    for own, leaf in zip(work.inputs, leaves, strict=True):
        torch.testing.assert_close(own.grad, leaf.grad)
    for own, given in zip(work.module.parameters(), case.module.parameters(), strict=True):
        torch.testing.assert_close(own.grad, given.grad)


@MODES
def test_an_ordinary_module_is_given_its_own_leaves_and_nothing_is_put_back(mode: str) -> None:
    given: list[torch.Tensor] = []
    work = Workload(build_case(spec("Plain", mode=mode)))
    work.module.register_forward_pre_hook(lambda _module, inputs: given.extend(inputs))
    work.run(1)
    assert [id(x) for x in given] == [id(x) for x in work.inputs]
    assert all(x.is_leaf for x in given)
    assert work.restoring is None


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch.compile with everything that rearranges writing, but without a compiler for what comes of it."""

    def traced(work: Workload, **_options: Any) -> Callable[..., Any]:
        return torch.compile(compiled._own_code(work.module), backend="aot_eager")

    monkeypatch.setattr(compiled, "_compile", traced)
    monkeypatch.setattr(compiled, "_start_compiler", lambda _device, _mode: None)
    yield
    compiled.forget_compiled()


@MODES
@pytest.mark.usefixtures("no_code")
@pytest.mark.parametrize("backend", ["eager", "compile"])
@pytest.mark.parametrize("name", ["Doubling", "Activates"])
def test_each_step_finds_the_same_values_under_any_backend(name: str, backend: str, mode: str) -> None:
    case = build_case(spec(name, mode=mode))
    prepared = backends.load(backend)(case)
    once = prepared.outputs(0)
    prepared.run(5)
    assert prepared.workload is not None
    written = {f"{place}": prepared.workload.inputs[place].detach() for place in case.written}
    assert once.kinds["written input"].keys() == written.keys()
    for place, tensor in written.items():
        torch.testing.assert_close(tensor, once.kinds["written input"][place])
    eager = Workload(case).outputs(0)
    for kind, tensors in eager.kinds.items():
        for key, tensor in tensors.items():
            torch.testing.assert_close(once.kinds[kind][key], tensor)


@MODES
def test_every_step_of_a_bench_is_given_the_same_values(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[writing.Recorder] = []
    construct = writing.Recorder.__init__

    def noted(module: writing.Recorder, channels: int) -> None:
        construct(module, channels)
        made.append(module)

    monkeypatch.setattr(writing.Recorder, "__init__", noted)
    record = benched("Recorder", mode=mode)
    assert (record.status, record.writes_inputs) == ("ok", ("x",))
    [first] = {value for module in made for value in module.seen}
    assert first == float(build_case(spec("Recorder")).inputs[0].flatten()[0])
    assert sum(len(module.seen) for module in made) > 60


@MODES
@pytest.mark.parametrize("cache", ["warm", "cold"])
def test_a_record_and_the_terminal_say_what_is_written_into(mode: str, cache: str) -> None:
    record = benched("Both", mode=mode, options={"cache": cache})
    assert (record.status, record.writes_inputs) == ("ok", ("maps[0]", "maps[1]"))
    assert record.macs == N * C * C * H * W
    assert record.error_vs_eager == 0.0
    assert "writes into its input maps[0] and maps[1]" in one_line(record)
    assert Record.from_dict(record.to_dict()) == record


@pytest.mark.long
def test_a_row_in_a_process_of_its_own_says_it_too() -> None:
    [record] = bench([spec("Doubling", mode="train")], Options(measures=("memory",), baseline=None, isolate="process"))
    assert (record.status, record.reason, record.writes_inputs) == ("ok", None, ("x",))


def test_of_an_ordinary_module_nothing_is_said() -> None:
    record = benched("Plain")
    assert record.writes_inputs is None
    assert "writes" not in one_line(record)


def step(*, restore: Callable[[], None] | None, repeat: Callable[[int], None], **parts: Any) -> Prepared:
    return Prepared(
        backend="own", repeat=repeat, restore=restore, outputs=lambda _seed: Outputs({}),
        preparation=Preparation(first_call_s=0.0), parts=parts,
    )  # fmt: skip


@pytest.mark.parametrize("cold", [False, True])
def test_the_time_of_putting_back_is_in_no_sample_and_in_no_part(cold: bool) -> None:
    clock, log = FakeClock(), []

    def passes(what: str, seconds: float) -> Callable[..., None]:
        def work(times: int = 1) -> None:
            log.extend([what] * times)
            clock.pass_time(seconds * times)

        return work

    prepared = step(
        restore=passes("restore", 7.0), repeat=passes("step", 2.0),
        forward=passes("forward", 0.5), backward=passes("backward", 1.5),
    )  # fmt: skip
    timed = Timed(prepared, clock, passes("flush", 30.0) if cold else None)
    assert timed.sample(3).step_s == pytest.approx(2.0)
    assert log[-9 if cold else -6 :] == (["restore", "flush", "step"] if cold else ["restore", "step"]) * 3
    assert timed.split(2) == pytest.approx({"forward": 0.5, "backward": 1.5})
    assert log.count("restore") == log.count("step") + 2


def test_steps_that_write_into_nothing_are_still_timed_together() -> None:
    clock, calls = FakeClock(), []

    def repeat(times: int) -> None:
        calls.append(times)
        clock.pass_time(2.0 * times)

    assert Timed(step(restore=None, repeat=repeat), clock).sample(50).step_s == pytest.approx(2.0)
    assert max(calls) == 50


@MODES
def test_a_module_that_writes_costs_what_its_twin_costs(mode: str) -> None:
    plain, writes = count(spec("Plain", mode=mode)), count(spec("Activates", mode=mode))
    assert writes.fields == plain.fields
    assert sum(row.calls for row in writes.rows) == sum(row.calls for row in plain.rows)


@MODES
def test_the_peak_of_a_module_that_writes_is_without_what_writing_spares(mode: str) -> None:
    plain, writes = (memory.measure(build_case(spec(name, mode=mode))) for name in ("Plain", "Activates"))
    # in inference two maps beside the inputs at once, either way; in training relu's result is kept, or is the input
    assert writes.peak_bytes == plain.peak_bytes - (MAP_BYTES if mode == "train" else 0)
    assert writes.peak_parts_bytes is not None
    assert writes.peak_parts_bytes["inputs"] == 2 * MAP_BYTES
    assert writes.saved_bytes == plain.saved_bytes == (MAP_BYTES if mode == "train" else None)


def test_the_graphs_that_the_gate_counts_are_traced_on_copies() -> None:
    case = build_case(spec("Doubling"))
    before = [x.clone() for x in case.inputs]
    assert count_graph(case).graph_breaks == 0
    assert all(map(torch.equal, case.inputs, before))


@MODES
def test_the_gate_times_the_steps_of_a_module_that_writes_without_the_putting_back(
    mode: str,
) -> None:
    watch = Stopwatch(spec("Doubling", mode=mode), "eager")
    clock, given = FakeClock(), []
    restore, repeat = watch._prepared.restore, watch._prepared.repeat
    assert restore

    def slowly() -> None:
        clock.pass_time(7.0)
        restore()

    def step(times: int) -> None:
        given.append(float(watch._prepared.workload.inputs[0].detach().flatten()[0]))  # type: ignore[union-attr]
        clock.pass_time(2.0 * times)
        repeat(times)

    watch._prepared = dataclasses.replace(watch._prepared, restore=slowly, repeat=step)
    watch._clock = clock
    assert watch.time(3) == pytest.approx(2000.0)
    assert set(given) == {float(build_case(spec("Doubling")).inputs[0].flatten()[0])}


@MODES
def test_a_profile_says_it_and_its_steps_hold_no_putting_back(mode: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    notes = capture(build_case(spec("Bare", mode=mode)), "eager", trace, steps=2, warmup=1).notes
    assert notes == ["It writes into its input x: each step sees the same values again."]
    events = json.loads(trace.read_text())["traceEvents"]
    on_maps = [e["name"] for e in events if [N, C, H, W] in e.get("args", {}).get("Input Dims", ())]
    assert on_maps.count("aten::relu_") == 2
    assert "aten::copy_" not in on_maps


def test_a_module_that_edits_what_backward_needs_fails_as_in_a_network() -> None:
    class Breaks(writing.Plain):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            gate = y.sigmoid_()
            out = x * gate
            gate.add_(1)
            return out

    case = build_case(spec("Plain", mode="train"))
    object.__setattr__(case, "module", Breaks(C))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        Workload(case).run(1)


def test_no_memory_is_copied_for_an_input_that_is_no_leaf_and_its_layout_stays() -> None:
    leaf = torch.randn(2, 4, 3, 3).contiguous(memory_format=torch.channels_last).requires_grad_()
    given = as_in_network(leaf)
    assert (given.data_ptr(), given.stride(), given.is_leaf) == (leaf.data_ptr(), leaf.stride(), False)
    given.mul_(2).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == torch.full_like(leaf, 2).tolist()


def test_inputs_without_a_name_are_numbered() -> None:
    assert input_names(nn.Identity(), 2) == ["input", "input[0]"]
    assert input_names(writing.Both(2), 3) == ["maps[0]", "maps[1]", "maps[2]"]


def test_the_report_says_which_fusion_writes_into_what_once() -> None:
    from afftool.record import Environment, Run

    records = tuple(benched("Activates", options={"measures": ("memory",)}, batch=batch) for batch in (1, 2))
    run = Run(id=1, command="", started="", environment=Environment(afftool="", python=""), records=records)
    [table] = [table for table in caveats(run) if table.title == "Inputs written into"]
    assert [list(row) for row in table.rows] == [["writing:Activates", "y"]]
