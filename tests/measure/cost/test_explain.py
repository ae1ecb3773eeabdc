"""The explanation of a count adds up, and quotes the field's other counters rightly."""

import warnings

import pytest

from afftool.build import build_case
from afftool.catalog import FUSIONS
from afftool.formats.markdown import table_block
from afftool.measure.cost.explain import explain
from afftool.report.breakdown import module_table, operator_table
from afftool.spec import CaseSpec, FusionSpec, HostSpec


def case(fusion: str, **settings: object) -> CaseSpec:
    fields = {"channels": 16, "size": (6, 6), "batch": 2, **settings}
    return CaseSpec(fusion=FusionSpec.parse(fusion), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_rows_add_up_to_the_totals_in_both_directions(name: str, mode: str) -> None:
    explanation = explain(case(name, mode=mode))
    reading = explanation.reading
    for direction, totals in (
        ("forward", (reading.macs, reading.flops, reading.moved_bytes)),
        ("backward", (reading.backward_macs, reading.backward_flops, reading.backward_moved_bytes)),
    ):
        rows = [row for row in explanation.rows if row.direction == direction]
        if mode == "infer" and direction == "backward":
            assert rows == []
            assert totals == (None, None, None)
            continue
        assert rows
        assert (sum(r.macs for r in rows), sum(r.flops for r in rows), sum(r.moved_bytes for r in rows)) == totals
    assert reading.uncounted_ops == {}
    assert all(row.formula for row in explanation.rows)


def _pools(name: str) -> bool:
    grammar = FusionSpec.parse(name).grammar
    return grammar is not None and any(isinstance(scale, int) for scale in grammar.scales)


@pytest.mark.parametrize("name", [name for name in FUSIONS if not _pools(name)])
def test_fvcore_agrees_on_the_operators_it_counts(name: str) -> None:
    """It counts multiply-adds, means by their elements, and batch norm in eval as scale and shift: as we do.

    Means and pooled maps run under one name there, and what it says of both is shared out between them.
    """
    pytest.importorskip("fvcore")
    explanation = explain(case(name))
    assert explanation.notes == ()
    counted = {"aten.convolution": "macs", "aten.mean": "flops", "aten.native_batch_norm": "flops"}
    for row in explanation.rows:
        assert row.fvcore_flops == (getattr(row, counted[row.operator]) if row.operator in counted else 0)


def test_fvcore_s_column_adds_up_to_what_fvcore_itself_says() -> None:
    fvcore = pytest.importorskip("fvcore.nn")
    spec = CaseSpec(
        fusion=FusionSpec.parse("iaff"), host=HostSpec.parse("resnet:b=1"), channels=None, size=(32, 32), batch=2
    )
    built = build_case(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = fvcore.FlopCountAnalysis(built.module, built.inputs).unsupported_ops_warnings(False).total()
    explanation = explain(spec)
    assert sum(row.fvcore_flops or 0 for row in explanation.rows) == said


def test_other_counters_leave_out_what_they_leave_out() -> None:
    rows = {row.operator: row for row in explain(case("aff", mode="train")).rows if row.direction == "forward"}
    convolution, sigmoid = rows["aten.convolution"], rows["aten.sigmoid"]
    assert convolution.torch_flops == 2 * convolution.mac_only == 2 * convolution.macs < convolution.flops
    assert (sigmoid.fvcore_flops, sigmoid.torch_flops, sigmoid.mac_only) == (0, 0, 0)
    assert sigmoid.flops == 2 * 16 * 36


def test_without_fvcore_its_column_is_empty_and_a_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "fvcore.nn", None)
    explanation = explain(case("aff"))
    assert all(row.fvcore_flops is None for row in explanation.rows)
    assert "pip install 'afftool[explain]'" in explanation.notes[0]
    assert "not installed" in explanation.notes[0]


def test_tables_show_every_operator_the_totals_and_the_tree() -> None:
    explanation = explain(case("aff", mode="train"))
    table = operator_table("aff", explanation)
    assert len(table.rows) == len(explanation.rows) + 2
    assert (table.values("operator")[-2], table.values("direction")[-2]) == ("total", "forward")
    assert table.values("flops")[-2:] == [explanation.reading.flops, explanation.reading.backward_flops]
    tree = module_table("aff", explanation.reading)
    assert tree.values("module")[:3] == ["aff", "· local_att", "· · 0"]
    assert "AdaptiveAvgPool2d" in table_block(tree)
