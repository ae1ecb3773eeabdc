"""Peak and saved bytes against hand counts, by cause and by module, with nothing touched on the way."""

import dataclasses
import gc

import closed_form_memory as by_hand
import pytest
import torch
from by_hand import FORMULAS
from closed_form_memory import Sizes
from torch import nn
from torch.nn import functional as F

from afftool.backends import Prepared, eager
from afftool.backends.getting_ready import first_steps
from afftool.backends.workload import Workload
from afftool.build import Case, build_case
from afftool.catalog import FUSIONS
from afftool.errors import Unavailable
from afftool.measure.memory import peak as memory
from afftool.measure.memory.allocations import record
from afftool.measure.memory.causes import CAUSES
from afftool.record import Record
from afftool.spec import CaseSpec, FusionSpec, HostSpec

SHAPES = [
    Sizes(2, 64, 4, (14, 14)),
    Sizes(8, 16, 2, (12, 20)),
    Sizes(3, 20, 3, (5, 7)),  # reduction does not divide the channels
    Sizes(15, 8, 4, (9, 4)),
    Sizes(2, 256, 4, (3, 3)),  # weights outweigh maps: the peak lies elsewhere
    Sizes(2, 128, 2, (1, 2)),
]
PASSES = {"aff": 1, "iaff": 2}


def case(fusion: str, sizes: Sizes, mode: str = "train", **settings: object) -> Case:
    module = "." in fusion or fusion in ("add", "concat")  # one of the user's own, or without attention
    text = fusion if module or "reduction" in fusion else f"{fusion}:reduction={sizes.reduction}"
    spec = CaseSpec(
        fusion=FusionSpec.parse(text),
        channels=sizes.channels,
        size=sizes.size,
        batch=sizes.batch,
        mode=mode,  # type: ignore[arg-type]
        **settings,  # type: ignore[arg-type]
    )
    return build_case(spec)


def own(module: nn.Module, *inputs: torch.Tensor, mode: str = "train") -> Case:
    """A case around a module of the test's, its spec only telling the mode."""
    spec = CaseSpec(fusion=FusionSpec.parse("add"), mode=mode)  # type: ignore[arg-type]
    return Case(spec, module.train(mode == "train"), inputs)


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
def test_adding_saves_nothing_and_peaks_at_six_maps(sizes: Sizes) -> None:
    reading = memory.measure(case("add", sizes))
    assert (reading.peak_bytes, reading.saved_bytes) == (by_hand.add_peak_bytes(sizes), 0)
    assert reading.param_bytes == reading.gradient_bytes == reading.optimizer_bytes == 0
    assert memory.measure(case("add", sizes, "infer")).peak_bytes == by_hand.add_infer_peak_bytes(sizes)


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
@pytest.mark.parametrize("fusion", PASSES)
def test_peak_and_saved_bytes_of_a_training_step_are_the_hand_counts(fusion: str, sizes: Sizes) -> None:
    reading = memory.measure(case(fusion, sizes))
    assert reading.saved_bytes == by_hand.saved_bytes(fusion, sizes)
    assert reading.peak_bytes == by_hand.attention_peak_bytes(sizes, PASSES[fusion])
    params = sizes.params(PASSES[fusion]) * by_hand.FLOAT
    assert reading.param_bytes == reading.gradient_bytes == reading.optimizer_bytes == params


@pytest.mark.parametrize("sizes", SHAPES[:4], ids=str)
@pytest.mark.parametrize("fusion", PASSES)
def test_peak_of_inference_is_the_hand_count(fusion: str, sizes: Sizes) -> None:
    reading = memory.measure(case(fusion, sizes, "infer"))
    assert reading.peak_bytes == by_hand.attention_infer_peak_bytes(sizes, PASSES[fusion])
    assert (reading.saved_bytes, reading.gradient_bytes, reading.optimizer_bytes) == (None, None, None)


@pytest.mark.parametrize("sizes", SHAPES[2:4], ids=str)
@pytest.mark.parametrize("fusion", FORMULAS)
def test_every_preset_saves_what_was_counted_by_hand(fusion: str, sizes: Sizes) -> None:
    reading = memory.measure(case(fusion, sizes))
    assert reading.saved_bytes == by_hand.saved_bytes(fusion, sizes)
    assert sum((reading.saved_by_module_bytes or {}).values()) == reading.saved_bytes


def test_half_precision_halves_the_maps_that_are_saved() -> None:
    sizes = Sizes(2, 8, 2, (6, 6))
    narrow = memory.measure(case("concat", sizes, dtype="bfloat16"))
    assert narrow.saved_bytes == by_hand.saved_bytes("concat", sizes) // 2


@pytest.mark.parametrize("fusion", ["add", "concat", "sk", "ms-gau", "aff", "recursive-aff", "eres2net-aff"])
def test_the_allocator_saw_forward_keep_what_the_hooks_were_handed(fusion: str) -> None:
    given = case(fusion, Sizes(3, 16, 4, (5, 4)))
    saved = memory.measure(given).saved_bytes
    prepared = eager.prepare(given)
    with record(torch.device("cpu")) as recording:
        with recording.phase("forward"):
            prepared.parts["forward"]()
        prepared.parts["backward"]()
    forward = recording.timeline.phases["forward"]
    kept = sum(b.nbytes for b in recording.timeline.alive(forward.end) if b.born >= forward.first)
    output = given.inputs[0].nbytes
    inputs = {"add": 0, "concat": 0, "ms-gau": 2, "sk": 2}.get(fusion, 2) * given.inputs[0].nbytes
    assert kept - output == (saved or 0) - inputs


@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("fusion", ["add", "concat", "aff", "iaff"])
def test_the_parts_of_a_peak_add_up_to_it(fusion: str, mode: str) -> None:
    reading = memory.measure(case(fusion, SHAPES[0], mode))
    parts = reading.peak_parts_bytes or {}
    assert sum(parts.values()) == reading.peak_bytes
    assert set(parts) <= set(CAUSES)
    assert parts.get("parameters", 0) == reading.param_bytes
    assert parts["inputs"] == 2 * SHAPES[0].map * by_hand.FLOAT
    assert parts.get("workspace", 0) == reading.workspace_bytes


def test_at_the_peak_of_aff_the_causes_are_the_hand_count_line_by_line() -> None:
    sizes = SHAPES[0]
    parts = memory.measure(case("aff", sizes)).peak_parts_bytes or {}
    still_saved = sizes.map + 2 * sizes.inner_map + sizes.map + 2 * (sizes.inner + sizes.channels)
    assert parts == {
        "parameters": sizes.params(1) * 4,
        "buffers": sizes.buffer_bytes(1),
        "inputs": 2 * sizes.map * 4,
        "outputs": 2 * sizes.map * 4,
        "gradients": (sizes.branch_params + 2 * sizes.channels) * 4,
        "input gradients": 2 * sizes.map * 4,
        "optimizer": sizes.params(1) * 4,
        "saved": still_saved * 4,
        "workspace": 4 * sizes.map * 4,
    }


def test_saved_bytes_are_put_down_to_the_submodule_that_kept_them_first() -> None:
    sizes = SHAPES[0]
    kept = memory.measure(case("aff", sizes)).saved_by_module_bytes or {}
    assert kept["local_att.0"] == sizes.map * 4  # u, as its input
    assert kept["local_att.1"] == (sizes.inner_map + 2 * sizes.inner) * 4  # its input and two statistics
    assert kept["local_att.2"] == sizes.inner_map * 4  # what it returns, in place
    assert kept["local_att.4"] == (sizes.map + 2 * sizes.channels) * 4
    assert kept[""] == 4 * sizes.map * 4  # x, y, w and 1 - w


def test_a_tensor_saved_twice_or_as_a_view_is_counted_once_and_whole() -> None:
    class Squares(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            both = torch.cat([x, y])  # one storage of two maps, of which views are saved, some of them twice
            return both[:2] * both[2:] + both[:2].sin()

    x = torch.randn(2, 3, 4, 4)
    assert memory.measure(own(Squares(), x, x.clone())).saved_bytes == 2 * x.nbytes


def test_a_graph_that_forward_throws_away_is_not_saved() -> None:
    class Peeks(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            (x.exp() * y.exp()).sum().item()
            return x + y

    x = torch.randn(2, 3, 4, 4)
    assert memory.measure(own(Peeks(), x, x.clone())).saved_bytes == 0


def test_one_more_tensor_saved_shows() -> None:
    class Gate(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(x) + y

    class Wasteful(Gate):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return 1 / (1 + torch.exp(-x)) + y

    x = torch.randn(2, 3, 4, 4)
    lean, wasteful = (memory.measure(own(m, x, x.clone())) for m in (Gate(), Wasteful()))
    assert (lean.saved_bytes, wasteful.saved_bytes) == (x.nbytes, 2 * x.nbytes)


def test_intermediate_results_are_workspace_in_inference() -> None:
    class Chain(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x + y).exp().sin()

    x = torch.randn(4, 5)
    reading = memory.measure(own(Chain(), x, x.clone(), mode="infer"))
    assert reading.peak_parts_bytes == {"inputs": 2 * x.nbytes, "workspace": 2 * x.nbytes}
    assert reading.peak_bytes == 4 * x.nbytes


def test_an_output_that_is_an_input_costs_nothing() -> None:
    class First(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.view_as(x)

    x = torch.randn(4, 5)
    reading = memory.measure(own(First(), x, x.clone(), mode="infer"))
    assert reading.peak_parts_bytes == {"inputs": 2 * x.nbytes}


def test_what_runs_only_in_the_first_step_is_in_the_cold_peak_alone() -> None:
    class Tunes(nn.Module):
        tuned = False

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            if not self.tuned:
                torch.empty(100 * x.numel()).fill_(0.0)
                self.tuned = True
            return x + y

    x = torch.randn(4, 5)
    reading = memory.measure(own(Tunes(), x, x.clone(), mode="infer"))
    assert reading.peak_bytes == 3 * x.nbytes
    assert reading.cold_peak_bytes >= 102 * x.nbytes


def test_shared_and_frozen_parameters_are_counted_once_and_without_a_gradient() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4, bias=False)
            self.b = nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight
            self.frozen = nn.Linear(4, 4, bias=False).requires_grad_(False)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.relu(self.a(x)) + self.b(y) + self.frozen(y)

    x = torch.randn(2, 4)
    reading = memory.measure(own(Tied(), x, x.clone()))
    assert (reading.param_bytes, reading.gradient_bytes, reading.optimizer_bytes) == (128, 64, 64)


def test_reading_memory_is_repeatable_and_independent_of_garbage() -> None:
    first = memory.measure(case("iaff", SHAPES[1]))
    ring: list[object] = [torch.ones(1000)]
    ring.append(ring)
    del ring
    gc.disable()
    try:
        assert memory.measure(case("iaff", SHAPES[1])) == first
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_peak_of_maps_does_not_depend_on_the_number_of_threads() -> None:
    sizes = Sizes(4, 32, 4, (20, 20))
    alone = memory.measure(case("aff", sizes))
    assert memory.measure(case("aff", sizes), threads=2).peak_bytes == alone.peak_bytes
    assert torch.get_num_threads() == 1


def test_module_inputs_gradients_and_random_state_stay_as_they_were() -> None:
    given = case("aff", SHAPES[2])
    given.module.add_module("noise", nn.Dropout())
    before = {name: value.clone() for name, value in given.module.state_dict().items()}
    inputs = [x.clone() for x in given.inputs]
    random = torch.get_rng_state()
    memory.measure(given)
    memory.observe(given, eager.prepare)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[name], value) for name, value in given.module.state_dict().items())
    assert all(map(torch.equal, inputs, given.inputs))
    assert all(p.grad is None for p in given.module.parameters())
    assert not any(x.requires_grad for x in given.inputs)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in given.module.modules())


def test_a_module_that_fails_leaves_no_recording_behind() -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            raise ArithmeticError("never works")

    x = torch.randn(2, 2)
    for _ in range(2):
        with pytest.raises(ArithmeticError):
            memory.measure(own(Fails(), x, x))
    assert gc.isenabled()
    assert memory.measure(case("add", SHAPES[3])).saved_bytes == 0


def test_observing_a_backend_agrees_with_measuring_under_eager() -> None:
    given = case("aff", SHAPES[0])
    prepared, observed = memory.observe(given, eager.prepare)
    measured = memory.measure(given)
    assert (observed.peak_bytes, observed.param_bytes) == (measured.peak_bytes, measured.param_bytes)
    assert observed.graph_pool_bytes is None
    prepared.step()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_graph_of_autograd_tells_the_saved_bytes_that_the_hooks_were_handed(fusion: str) -> None:
    given = case(fusion, Sizes(3, 16, 4, (5, 4)))
    measured = memory.measure(given)
    _, observed = memory.observe(given, eager.prepare)
    assert (observed.saved_bytes, observed.gradient_bytes, observed.optimizer_bytes) == (
        measured.saved_bytes,
        measured.gradient_bytes,
        measured.optimizer_bytes,
    )
    _, inferring = memory.observe(case(fusion, Sizes(3, 16, 4, (5, 4)), "infer"), eager.prepare)
    assert (inferring.saved_bytes, inferring.gradient_bytes, inferring.optimizer_bytes) == (None, None, None)


def test_a_compiled_training_step_tells_its_gradients_the_optimizer_and_what_it_saves() -> None:
    def prepare(given: Case) -> Prepared:
        work = Workload(given)
        work.forward = torch.compile(work.module, backend="aot_eager")
        preparation = first_steps(work.run, "cpu")
        return Prepared(
            backend="own",
            repeat=work.run,
            outputs=work.outputs,
            preparation=preparation,
            workload=work,
            parts=work.parts,
        )

    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 5))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (self.weight * x).sigmoid() * y

    x = torch.randn(4, 5)
    _, compiled = memory.observe(own(Gate(), x, x.clone()), prepare)
    assert (compiled.param_bytes, compiled.gradient_bytes, compiled.optimizer_bytes) == (x.nbytes,) * 3
    assert compiled.saved_bytes == 3 * x.nbytes  # x, y and the gate


def test_where_no_graph_is_left_to_look_at_nothing_is_said_of_what_is_saved() -> None:
    def replayed(given: Case) -> Prepared:
        prepared = eager.prepare(given)
        return dataclasses.replace(prepared, parts={"forward": lambda: None, "backward": lambda: None})

    _, reading = memory.observe(case("aff", SHAPES[2]), replayed)
    assert reading.saved_bytes is None
    assert reading.gradient_bytes == reading.optimizer_bytes == reading.param_bytes


def test_a_reading_can_span_a_compilation() -> None:
    def prepare(given: Case) -> Prepared:
        work = Workload(given)
        work.forward = torch.compile(work.module, backend="aot_eager")
        return Prepared(backend="own", repeat=work.run, outputs=work.outputs, preparation=first_steps(work.run, "cpu"))

    given = case("sk", Sizes(2, 8, 2, (6, 5)), "infer")
    _, compiled = memory.observe(given, prepare)
    assert 3 * given.inputs[0].nbytes <= compiled.peak_bytes <= memory.measure(given).peak_bytes
    assert compiled.cold_peak_bytes >= compiled.peak_bytes


def test_a_host_is_measured_with_its_image_and_without_its_gradient() -> None:
    spec = CaseSpec(
        fusion=FusionSpec.parse("aff"),
        host=HostSpec.parse("resnet:b=1"),
        channels=None,
        size=(16, 16),
        batch=2,
        mode="train",
    )
    reading = memory.measure(build_case(spec))
    parts = reading.peak_parts_bytes or {}
    assert parts["inputs"] == 2 * 3 * 16 * 16 * 4
    assert "input gradients" not in parts
    assert sum(parts.values()) == reading.peak_bytes
    assert reading.gradient_bytes == reading.optimizer_bytes == reading.param_bytes


def test_the_meta_device_has_no_memory_to_measure() -> None:
    with pytest.raises(Unavailable, match="meta"):
        memory.measure(case("add", SHAPES[0], device="meta"))


def test_every_field_of_a_reading_is_a_field_of_a_record() -> None:
    fields = memory.measure(case("aff", SHAPES[2])).fields
    row = Record(fusion="aff", **fields)
    assert Record.from_dict(row.to_dict()).peak_parts_bytes == fields["peak_parts_bytes"]


@pytest.mark.gpu
class TestOnCuda:
    def test_saved_bytes_are_those_of_the_cpu(self) -> None:
        sizes = SHAPES[0]
        reading = memory.measure(case("aff", sizes, device="cuda:0"))
        assert reading.saved_bytes == by_hand.saved_bytes("aff", sizes)
        assert sum((reading.peak_parts_bytes or {}).values()) == reading.peak_bytes

    def test_the_allocator_has_reserved_what_it_handed_out(self) -> None:
        reading = memory.measure(case("iaff", Sizes(8, 64, 4, (56, 56)), device="cuda:0"))
        assert reading.reserved_bytes is not None
        assert reading.reserved_bytes >= reading.peak_bytes >= (reading.requested_bytes or 0) > 0
        assert (reading.workspace_bytes or 0) >= 0

    def test_a_neighbour_on_the_device_is_not_counted(self) -> None:
        given = case("aff", SHAPES[0], device="cuda:0")
        alone = memory.measure(given).peak_bytes
        neighbour = torch.empty(1 << 28, device="cuda:0")
        assert memory.measure(given).peak_bytes == alone
        del neighbour

    @pytest.mark.parametrize("mode", ["infer", "train"])
    def test_a_workspace_of_cublas_is_no_cases_memory(self, mode: str) -> None:
        from afftool.backends import cudagraph

        class Multiplies(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.randn(64, 64))

            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return x @ self.weight + y

        x = torch.randn(64, 64, device="cuda:0")
        given = own(Multiplies().cuda(), x, x.clone(), mode=mode)
        given = dataclasses.replace(given, spec=dataclasses.replace(given.spec, device="cuda:0"))
        torch.cuda.empty_cache()
        reading = memory.measure(given)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(side):
            x @ x  # a neighbour's workspace
        assert memory.measure(given) == reading
        assert reading.peak_bytes < 1 << 20
        assert (reading.requested_bytes or 0) >= 3 * x.nbytes
        prepared, captured = memory.observe(given, cudagraph.prepare)
        assert captured.peak_bytes < 16 << 20  # what is left over of a segment of 20 MiB is the pool's
        assert captured.cold_peak_bytes < 16 << 20
        prepared.close()

    def test_a_captured_graph_owns_a_private_pool_that_is_part_of_its_peak(self) -> None:
        from afftool.backends import cudagraph

        given = case("aff", Sizes(8, 64, 4, (56, 56)), device="cuda:0")
        prepared, reading = memory.observe(given, cudagraph.prepare)
        assert reading.graph_pool_bytes
        assert reading.peak_bytes >= reading.graph_pool_bytes + reading.param_bytes
        assert reading.cold_peak_bytes <= reading.peak_bytes + reading.graph_pool_bytes // 2
        assert (reading.reserved_bytes or 0) >= reading.peak_bytes
        assert reading.requested_bytes is None
        assert reading.gradient_bytes == reading.optimizer_bytes == reading.param_bytes
        assert reading.saved_bytes is None
        prepared.close()

    def test_eager_has_no_private_pool(self) -> None:
        _, reading = memory.observe(case("aff", SHAPES[0], device="cuda:0"), eager.prepare)
        assert reading.graph_pool_bytes is None
