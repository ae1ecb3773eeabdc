"""Each exact metric has a change planted in a fusion of a user's own; the gate names it, in a reviewer's words."""

import sys

import pytest

from afftool.gate.exact import read_exact
from afftool.gate.judge import Pair, judge
from afftool.gate.reading import EXACT
from afftool.gate.rules import RuleBook
from afftool.gate.side import CaseError
from afftool.spec import CaseSpec, FusionSpec

GATE = """
import torch
from torch import nn


class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x, y):
        gate = torch.sigmoid(self.conv(x + y))
        return x * gate
"""

EXTRA = ("self.conv = nn.Conv2d(channels, channels, 1)", "self.conv = nn.Conv2d(channels, channels, 1)\n        ")
RETURN = "        return x * gate"

# name: (replacements, metric, words of the reason)
PLANTED = {
    "an extra 1x1 convolution": (
        [
            (EXTRA[0], EXTRA[1] + "self.extra = nn.Conv2d(channels, channels, 1, bias=False)"),
            ("self.conv(x + y)", "self.conv(self.extra(x + y))"),
        ],
        {
            "params": ["64 more parameters (+88.9%)", "extra.weight +64"],
            "live_params": ["64 more parameters that a gradient reaches"],
            "macs": ["4,096 more multiply-adds (+100.0%)", "aten.convolution"],
            "flops": ["8,192 more FLOPs", "aten.convolution"],
            "operators": ["1 more operator call", "aten.convolution +1"],
        },
    ),
    "a dead branch": (
        [(EXTRA[0], EXTRA[1] + "self.unused = nn.Conv2d(channels, channels, 1)")],
        {
            "params": ["72 more parameters (+100.0%)", "unused.weight +64", "no gradient reaches any of them"],
            "live_params": ["72 more parameters that no gradient reaches (0 before)", "unused.weight", "delete them"],
        },
    ),
    "a branch that died": (
        [(RETURN, "        return x * gate.detach()")],
        {"live_params": ["72 more parameters that no gradient reaches (0 before)", "conv.weight +64, conv.bias +8"]},
    ),
    "a copy that moves bytes": (
        [(RETURN, "        return x.transpose(0, 1).contiguous().transpose(0, 1) * gate")],
        {"moved_bytes": ["4,096 more bytes moved", "aten.clone"]},
    ),
    "a tensor more that is saved": (
        [(RETURN, "        return torch.tanh(x * gate)")],
        {"saved_bytes": ["2,048 more bytes saved for the backward pass", "forward itself +2,048"]},
    ),
    "a temporary at the peak": (
        [(RETURN, "        wide = torch.cat([x, y, gate])\n        return x * gate * wide.sum()")],
        {"peak_bytes": ["more bytes at the peak", "workspace"]},
    ),
    "an operator that no formula counts": (
        [(RETURN, "        return x * gate + torch.linalg.pinv(x.mean((0, 1))).sum()")],
        {"uncounted_ops": ["that no formula counts", "macs and flops leave these out"]},
    ),
    "a graph break": (
        [(RETURN, "        torch._dynamo.graph_break()\n        return x * gate")],
        {
            "graph_breaks": [
                "1 more graph break under torch.compile (0 -> 1)",
                "User-inserted graph break",
                "(after_a_graph_break.py:13)",
            ]
        },
    ),
    "a forward that is not compiled": (
        [("    def forward", "    @torch.compiler.disable\n    def forward")],
        {"graph_breaks": ["1 more graph break", "nothing of it is compiled"]},
    ),
    "a recompilation a call": (
        [
            (EXTRA[0], EXTRA[1] + "self.calls = 0"),
            (RETURN, "        self.calls += 1\n        return x * gate * self.calls"),
        ],
        {"recompiles": ["more recompilation"]},
    ),
}


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _read(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        spec = FusionSpec.parse(f"{name}:Gate")
        try:
            return read_exact(CaseSpec(fusion=spec, channels=8, size=(4, 4), batch=4), EXACT)
        finally:
            sys.modules.pop(name, None)

    return _read


def after(kind):
    text = GATE
    for old, new in PLANTED[kind][0]:
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_change_is_named_in_a_reviewer_s_words(read, kind):
    name = "after_" + kind.replace(" ", "_")
    before, candidate = read("before_" + kind.replace(" ", "_"), GATE), read(name, after(kind))
    found = {v.metric: v for v in judge([Pair(case="gate", before=before, after=candidate)], RuleBook(), EXACT)}
    for metric, words in PLANTED[kind][1].items():
        assert found[metric].outcome == "regression", (metric, found[metric])
        for word in words:
            assert word in found[metric].reason


def test_every_exact_metric_has_a_planted_change():
    assert {metric for _, expected in PLANTED.values() for metric in expected} == set(EXACT)


def test_the_same_code_reads_the_same(read):
    before, candidate = read("before_nothing", GATE), read("after_nothing", GATE)
    assert before.values == candidate.values
    assert set(before.values) == set(EXACT)
    assert candidate.source == "after_nothing.py:6"


def test_what_dynamo_cannot_trace_is_said_and_the_rest_is_read(read, monkeypatch):
    def fail(case):
        raise RuntimeError("no frame\nand a page of advice")

    monkeypatch.setattr("afftool.gate.exact.count_graph", fail)
    reading = read("untraceable", GATE)
    assert reading.values["params"] == 72
    assert reading.unread["graph_breaks"] == "torch.compile cannot trace it: RuntimeError: no frame"


def test_a_fusion_without_an_operator_has_no_graph_and_no_break(read):
    reading = read("nothing_to_compile", GATE.replace("return x * gate", "return x").replace("gate = torch", "# "))
    assert reading.values["graph_breaks"] == 0


def test_saved_bytes_do_not_apply_where_batch_norm_would_see_a_single_value():
    found = read_exact(CaseSpec(fusion=FusionSpec.parse("aff"), channels=16, size=(4, 4), batch=1), ["saved_bytes"])
    assert "saved_bytes" not in found.values
    assert "cannot be trained" in found.inapplicable["saved_bytes"]


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("metrics", [EXACT, ("graph_breaks",)])
def test_a_case_that_no_gradient_passes_fails_with_the_reason(tmp_path, monkeypatch, mode, metrics):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gate_cut.py").write_text(GATE.replace(RETURN, "        return (x * gate).detach()"))
    case = CaseSpec(fusion=FusionSpec.parse("gate_cut:Gate"), channels=8, size=(4, 4), batch=4, mode=mode)
    with pytest.raises(CaseError, match="no gradient passes: its output is cut from autograd") as failed:
        read_exact(case, metrics)
    assert ("requires_grad_(False)" in failed.value.message) == (mode == "infer")


def test_a_frozen_module_that_only_infers_needs_no_gradient(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = GATE.replace(RETURN, "        return (x * gate).detach()").replace(
        "channels, 1)", "channels, 1).requires_grad_(False)"
    )
    (tmp_path / "gate_frozen.py").write_text(text)
    case = CaseSpec(fusion=FusionSpec.parse("gate_frozen:Gate"), channels=8, size=(4, 4), batch=4)
    assert read_exact(case, ("params",)).values["params"] == 72


def test_a_file_that_changes_the_process_is_named_in_its_reading(read):
    reading = read("gate_global", "import torch\ntorch.set_grad_enabled(False)\n" + GATE)
    assert reading.status == "ok"
    assert reading.global_state == {"grad mode": "off instead of on, on import"}
    assert reading.values == read("gate_local", GATE).values


@pytest.mark.parametrize(("dtype", "mode"), [("float32", "infer"), ("float16", "train")])
@pytest.mark.parametrize(("metrics", "known"), [(["peak_bytes"], True), ([], True), (["params"], False)])
def test_values_that_are_not_finite_are_counted_where_a_step_is_made(
    tmp_path, monkeypatch, dtype, mode, metrics, known
):
    (tmp_path / "gate_not_finite.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Half(nn.Module):\n    def forward(self, x, y):\n"
        "        total = x + y\n        half = total[:, ::2]\n        return torch.cat([half / (half * 0), half], 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    fusion = FusionSpec.parse("gate_not_finite:Half")
    spec = CaseSpec(fusion=fusion, channels=4, size=(3, 3), batch=2, mode=mode, dtype=dtype)
    assert read_exact(spec, metrics).nonfinite_share == (0.5 if known else None)
