"""What both readers make of a GPU's trace whose every figure is known by hand (`cuda_trace`)."""

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from cuda_trace import cuda_trace

from afftool.errors import LoadError
from afftool.profile import plugin
from afftool.profile.operators import kind_of
from afftool.profile.run import OWN, summarise
from afftool.profile.summary import Profile, load, save
from afftool.profile.trace import grow, load_document, parse

CASE = {"fusion": "net", "backend": "eager"}


@pytest.fixture
def document() -> dict[str, Any]:
    return cuda_trace()


@pytest.fixture(params=["plugin", "own"])
def profile(request: pytest.FixtureRequest, document: dict[str, Any], tmp_path: Path) -> Profile:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(document))
    if request.param == "plugin":
        pytest.importorskip("torch_tb_profiler")
    loaded = load_document(path)
    translated = plugin.translate(loaded) if request.param == "plugin" else None
    read = summarise(loaded, translated, case=CASE, environment={})
    assert (read.tables_from == OWN) == (request.param == "own")
    return read


def test_operators_get_the_device_time_of_what_they_launched(profile: Profile) -> None:
    rows = {row.name: row for row in profile.operators}
    assert set(rows) == {"aten::conv2d", "aten::cudnn_convolution", "aten::add", "aten::copy_"}
    outer, inner = rows["aten::conv2d"], rows["aten::cudnn_convolution"]
    assert (outer.calls, outer.device_self_us, outer.device_total_us) == (3, 0, 600)
    assert (inner.calls, inner.device_self_us, inner.device_total_us) == (3, 600, 600)
    assert (outer.host_self_us, outer.host_total_us) == (120, 360)
    assert inner.host_self_us == 3 * (80 - 5), "a call into CUDA is no time of the operator's own"
    assert rows["aten::copy_"].device_self_us == 90
    assert profile.operators[0].name == "aten::cudnn_convolution", "the most expensive on the device first"


def test_kernels_have_their_times_and_the_profilers_estimates(profile: Profile) -> None:
    assert [(k.name, k.calls, k.total_us, k.mean_us, k.min_us, k.max_us) for k in profile.kernels] == [
        ("conv_kernel", 3, 600, 200, 200, 200),
        ("add_kernel", 3, 150, 50, 50, 50),
    ]
    assert (profile.kernels[0].occupancy_percent, profile.kernels[0].blocks_per_sm) == (25, 0.5)


def test_every_moment_of_a_step_counts_once(profile: Profile) -> None:
    shares = {row.category: row.step_us for row in profile.categories}
    assert shares["Kernel"] == 250
    assert shares["Memcpy"] == 30
    assert shares["Runtime"] == 5, "only the launch that no kernel hides"
    assert sum(shares.values()) == pytest.approx(profile.step_us)


def test_a_step_is_counted_once_though_the_device_repeats_its_annotation(profile: Profile) -> None:
    assert profile.steps_us == [900, 900, 900]


def test_modules_have_the_device_time_of_what_ran_in_them(profile: Profile) -> None:
    rows = {row.path: row for row in profile.modules}
    assert (rows["."].calls, rows["."].forward_us, rows["."].forward_self_us) == (3, 1200, 900)
    assert rows["."].forward_device_us == 750, "the copy comes after the module"
    assert (rows["gate"].type, rows["gate"].forward_device_us) == ("Gate", 150)


def test_gaps_are_between_neighbours_on_the_device(profile: Profile) -> None:
    (row,) = profile.gaps
    assert row.where == "GPU 0"
    assert row.gaps == 8
    assert row.total_us == 3 * (100 + 50) + 2 * 570
    assert (row.longest_us, row.longest_between) == (570, "Memcpy DtoD -> conv_kernel")


def test_the_memory_curve_has_the_peak_and_who_allocated_it(profile: Profile) -> None:
    (curve,) = profile.memory
    assert (curve.device, curve.peak_bytes, curve.allocations) == ("GPU 0", 4096, 3)
    assert (curve.peak_at_us, curve.peak_operator) == (30, "aten::conv2d")


def test_a_profile_goes_to_json_and_back_unchanged(profile: Profile, tmp_path: Path) -> None:
    save(profile, tmp_path / "profile.json")
    assert load(tmp_path / "profile.json") == profile


def test_translating_for_the_plugin_leaves_the_trace_as_it_was(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    translated = plugin.translate(document)
    assert document == before
    categories = {event.get("cat") for event in translated["traceEvents"]}
    assert "cuda_runtime" not in categories
    assert "gpu_user_annotation" not in categories


def test_overlapping_host_spans_are_left_out_not_nested(document: dict[str, Any], tmp_path: Path) -> None:
    first = next(e for e in document["traceEvents"] if e["name"] == "aten::add")
    document["traceEvents"].append({**first, "name": "aten::odd", "ts": first["ts"] + 30, "dur": 400})
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    assert "aten::odd" not in {span.name for span in grow(parse(load_document(path))).walk()}


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "not a readable trace"), (b'{"traceEvents": [', "not a readable trace"), (b"[1]", "not a trace")],
)
def test_a_broken_trace_is_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=says):
        load_document(path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::expand", "view"),
        ("aten::exp", "elementwise"),
        ("aten::_to_copy", "memory"),
        ("aten::t", "view"),
        ("aten::to", "memory"),
        ("aten::add_", "elementwise"),
        ("aten::addmm", "matrix product"),
        ("aten::mean", "reduction"),
        ("aten::norm", "reduction"),
        ("aten::native_batch_norm_backward", "normalisation"),
        ("ConvolutionBackward0", "convolution"),
        ("autograd::engine::evaluate_function: ConvolutionBackward0", "autograd"),
        ("graph_0_cpp_fused_add_mul_sigmoid_0", "fused kernel"),
        ("triton_poi_fused_add_0", "fused kernel"),
        ("mypkg::surprise", "other"),
    ],
)
def test_operators_are_sorted_into_kinds_by_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind
