"""What the review finds in fusions with a planted fault, and that it finds nothing in those without."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from typing import Any

import pytest
import torch
from planted_fusions import ours, planted
from torch import nn

from afftool.formats import renderer
from afftool.inspect.attention import attention_weights
from afftool.inspect.checks import CHECKS, review
from afftool.inspect.finding import Finding, inspect_report
from afftool.inspect.gradients import dead_parameters, x_and_y
from afftool.inspect.output import batch_of_1, mismatched_shapes, output, state_in_eval
from afftool.inspect.precision import sixteen_bits
from afftool.inspect.scale import output_scale, ten_blocks
from afftool.inspect.sizes import sizes
from afftool.inspect.subject import Subject
from afftool.inspect.tracing import export, graph_breaks

BAD = ("fault", "warning")


def worst(findings: list[Finding]) -> Finding:
    order = ["fault", "warning", "unknown", "note", "ok"]
    return min(findings, key=lambda f: order.index(f.severity))


# No false alarms: the whole review of what is right.


@pytest.mark.parametrize(("name", "steep"), [("add", []), ("aff", []), ("iaff", ["ten blocks"])])
def test_nothing_is_held_against_fusions_that_do_what_they_should_but_how_steep_they_are(
    name: str, steep: list[str]
) -> None:
    findings = list(review(ours(name, channels=32, size=(8, 8))))
    assert {f.check for f in findings} == set(CHECKS)
    assert [f.check for f in findings if f.severity in (*BAD, "unknown")] == steep


def test_nothing_is_held_against_a_users_module_without_a_fault() -> None:
    findings = list(review(planted("Plain")))
    assert [f.what for f in findings if f.severity in (*BAD, "unknown")] == []


CHEAP = [
    output,
    dead_parameters,
    output_scale,
    x_and_y,
    batch_of_1,
    mismatched_shapes,
    state_in_eval,
    attention_weights,
    sizes,
    sixteen_bits,
]


@pytest.mark.parametrize(
    "text",
    ["concat", "se", "gau", "highway", "sk", "ms-sa", "recursive-aff", "aff:inputs=3", "aff:ndim=1", "iaff:ndim=3"],
)
def test_the_cheap_checks_hold_nothing_against_any_other_fusion_of_the_paper(text: str) -> None:
    for check in CHEAP:
        for finding in check(ours(text)):
            assert finding.severity not in BAD, finding.what


# Each fault, found.


def test_the_dead_branch_of_the_released_iaff_is_found_and_counted() -> None:
    (finding,) = dead_parameters(ours("open-iaff", channels=24))
    assert finding.severity == "fault"
    assert finding.measured["never_called"] == ["global_att2"]
    inner = 24 // 4
    by_hand = 24 * inner + inner + 2 * inner + inner * 24 + 24 + 2 * 24
    assert finding.measured["dead_params"] == by_hand


def test_the_doubling_of_the_released_aff_is_found_and_that_of_addition_explained() -> None:
    (released,) = output_scale(ours("open-aff"))
    assert released.severity == "warning"
    assert released.measured["gain_equal_inputs"] == pytest.approx(2)
    assert "doubles" in released.what
    (paper,) = output_scale(ours("aff"))
    assert paper.measured["gain_equal_inputs"] == pytest.approx(1)
    (addition,) = output_scale(ours("add"))
    assert addition.severity == "ok"
    assert addition.measured["gain_equal_inputs"] == pytest.approx(2)
    assert "plain sum" in addition.what
    assert addition.measured["gain_independent_inputs"] == pytest.approx(math.sqrt(2), rel=0.05)


@pytest.mark.parametrize(("text", "factor"), [("aff:gain=1.5", 1.5), ("iaff:gain=0.5", 0.5), ("eres2net-aff", 2)])
def test_any_gain_of_a_selection_is_measured(text: str, factor: float) -> None:
    (finding,) = output_scale(ours(text))
    assert finding.severity == "warning"
    assert finding.measured["gain_equal_inputs"] == pytest.approx(factor)


@pytest.mark.parametrize(
    ("check", "name", "severity", "says"),
    [
        (output_scale, "Tripled", "warning", "add up to 3"),
        (dead_parameters, "Dead", "fault", "extra"),
        (x_and_y, "Deaf", "fault", "does not depend on y"),
        (mismatched_shapes, "Broadcasts", "warning", "one position|without a word"),
        (state_in_eval, "Counts", "fault", "changes calls"),
        (state_in_eval, "InPlace", "fault", "writes into its inputs"),
        (state_in_eval, "Restless", "warning", "something random"),
        (state_in_eval, "Remembers", "warning", "remembers being called"),
        (batch_of_1, "Leaky", "fault", "alone gives another result"),
        (batch_of_1, "BatchNormed", "note", "does not train with a batch of 1"),
        (attention_weights, "Stuck", "warning", "saturated"),
        (attention_weights, "Constant", "warning", "same everywhere"),
        (graph_breaks, "Breaks", "warning", "breaks the graph 1 time, in eval and in training"),
        (graph_breaks, "Disabled", "warning", "sees nothing of it"),
        (graph_breaks, "BreaksInTraining", "warning", "0 times in eval, 1 time in training"),
        (export, "FixedBatch", "warning", "dynamic batch"),
        (ten_blocks, "Explodes", "warning", "times as large"),
        (output, "Shrinks", "fault", "shape"),
        (output, "Infinite", "fault", "not finite"),
        (output, "InfiniteInTraining", "fault", "in training the output of finite inputs is not finite"),
        (output, "FailsInTraining", "fault", "fails in training: NotImplementedError: later (/"),
        (output, "Detached", "fault", "nothing can be trained through it"),
        (output, "TwoOutputs", "fault", "returns a tuple"),
        (output_scale, "DividesByDifference", "fault", "equal inputs give an output that is not finite"),
        (x_and_y, "RootOfZero", "fault", "gradient of the inputs is not finite"),
        (dead_parameters, "RootOfZero", "fault", "gradient of weight is not finite"),
    ],
)
def test_a_planted_fault_is_found(check: Any, name: str, severity: str, says: str) -> None:
    finding = worst(check(planted(name)))
    assert finding.severity == severity, finding.what
    assert any(part in finding.what for part in says.split("|")), finding.what
    assert finding.why
    assert finding.do


def test_a_parameter_multiplied_by_zero_is_dead_though_it_is_in_the_graph() -> None:
    (finding,) = dead_parameters(planted("Dead"))
    assert "muted" in finding.measured["dead"]
    assert not {"squeeze.weight", "excite.weight"} & set(finding.measured["dead"])
    assert finding.measured["never_called"] == ["extra"]


def test_a_gradient_that_is_zero_is_told_apart_from_a_parameter_that_is_not_in_the_output() -> None:
    (finding,) = dead_parameters(planted("Slammed"))
    assert finding.measured["zero_gradient"] == ["net.1.weight", "net.1.bias"]
    assert finding.measured["not_in_output"] == []
    assert "net is in the output with a gradient of exactly 0" in finding.what
    assert "saturated" in finding.do
    (finding,) = dead_parameters(planted("Dead"))
    assert finding.measured["zero_gradient"] == ["muted"]
    assert {name.split(".")[0] for name in finding.measured["not_in_output"]} == {"extra"}


def test_a_sum_is_called_plain_only_where_it_has_nothing_to_learn() -> None:
    (finding,) = output_scale(planted("Slammed"))
    assert finding.severity == "note"
    assert "though it has 72 parameters" in finding.what
    (plain,) = output_scale(planted("Broadcasts"))
    assert plain.severity == "ok"


def test_a_layer_that_starts_at_zero_makes_no_other_look_dead() -> None:
    (finding,) = dead_parameters(planted("ZeroInit"))
    assert finding.severity == "ok", finding.what


def test_a_module_that_runs_in_single_precision_only_is_still_measured() -> None:
    (finding,) = output_scale(planted("SingleOnly"))
    assert finding.severity == "ok"
    assert finding.measured["gain_equal_inputs"] == pytest.approx(1, abs=1e-5)


def test_ten_additions_grow_as_the_square_root_of_their_number() -> None:
    (finding,) = ten_blocks(ours("add", channels=32, size=(8, 8)))
    sizes = finding.measured["sizes"]
    assert len(sizes) == 11
    assert sizes[10] ** 2 - sizes[5] ** 2 == pytest.approx(sizes[5] ** 2 - sizes[0] ** 2, rel=0.25), "as much each time"


def test_the_review_leaves_the_callers_random_state_alone() -> None:
    import torch

    before = torch.random.get_rng_state()
    for check in CHEAP:
        check(ours("aff"))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("check", [batch_of_1, output_scale, x_and_y, attention_weights])
def test_a_count_of_calls_is_put_down_to_nothing_else(check: Any) -> None:
    for finding in check(planted("Remembers")):
        assert finding.severity in ("ok", "note"), finding.what


def test_dropout_left_on_in_eval_is_not_put_down_to_the_batch_or_the_export() -> None:
    alone, trains = batch_of_1(planted("Restless"))
    assert alone.severity == "unknown"
    assert "two calls with the same batch already differ" in alone.what
    assert trains.severity == "ok"
    (exported,) = export(planted("Restless"))
    assert exported.severity == "ok"


# The report.


@pytest.fixture(scope="module")
def findings() -> list[Finding]:
    looked = {
        "dead parameters": dead_parameters(ours("open-iaff")),
        "output scale": output_scale(ours("aff")),
        "x and y": x_and_y(ours("aff")),
    }
    return [dataclasses.replace(finding, check=name) for name, found in looked.items() for finding in found]


def test_the_worst_finding_comes_first_with_why_and_what_to_do(findings: list[Finding]) -> None:
    text = renderer("md")(inspect_report("open-iaff", list(reversed(findings)), {"channels": 16}))
    assert text.index("dead parameters") < text.index("output scale")
    assert "why it matters" in text
    assert "what to do" in text


def test_json_holds_every_measured_number_and_no_infinity(findings: list[Finding]) -> None:
    odd = Finding(
        check="ten blocks", severity="fault", what="", measured={"sizes": [1.0, math.inf], "growth": math.nan}
    )
    document = json.loads(renderer("json")(inspect_report("x", [*findings, odd], {"channels": 16})))
    rows = {f["check"]: f for f in document["findings"]}
    assert rows["ten blocks"]["measured"] == {"sizes": [1.0, None], "growth": None}
    assert rows["dead parameters"]["measured"]["never_called"] == ["global_att2"]


def test_csv_has_one_row_a_finding(findings: list[Finding]) -> None:
    text = renderer("csv")(inspect_report("x", findings, {}))
    rows = list(csv.DictReader(io.StringIO("\n".join(x for x in text.splitlines() if not x.startswith("#")))))
    assert next(row["check"] for row in rows) == "dead parameters"
    assert len(rows) == len(findings)


class Sums(nn.Module):
    """Weighs by a softmax that is written out, as `halves` does: float16 does not hold the sum."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        e = (4 * (x + y)).exp()
        return x * (e / e.sum((2, 3), keepdim=True)) + y


def test_what_overflows_in_16_bits_is_found_and_counted() -> None:
    subject = Subject(name="sums", make=Sums, channels=4, size=(32, 32), batch=2)
    found = worst(sixteen_bits(subject))
    assert (found.severity, worst(output(subject)).severity) == ("fault", "ok")
    with torch.no_grad():
        out = Sums().half()(*(x.half() for x in subject.maps()))
    share = 1 - int(torch.isfinite(out).sum()) / out.numel()
    assert found.measured["nonfinite_shares"]["in float16"] == share > 0
    assert found.measured["nonfinite_shares"]["in bfloat16"] == 0
    assert f"{share:.2%} in float16" in found.what


def test_how_much_of_an_output_is_not_finite_is_counted() -> None:
    class Divides(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[:, :1] / 0, (x + y)[:, 1:]], 1)

    [found] = output(Subject(name="divides", make=Divides, channels=4, size=(3, 3), batch=2))
    assert found.measured == {"finite": False, "nonfinite_share": 0.25}
    assert "25.00% of its values are infinite or NaN" in found.what
