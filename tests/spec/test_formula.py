from __future__ import annotations

import pytest

from afftool.errors import SpecError
from afftool.spec import FusionSpec, split_list
from afftool.spec.formula import fill


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{channels}", "64"),
        ("{channels*2}", "128"),
        ("{channels/4}", "16"),
        ("{channels//3}", "21"),
        ("{channels*0.5}", "32"),
        ("{(channels + 8) - 2}", "70"),
        ("{max(channels//16,8)}", "8"),
        ("[{channels},{2*channels}]", "[64,128]"),
        ("same", "same"),
    ],
)
def test_a_formula_of_the_width_is_worked_out_where_a_fusion_is_built(text, value) -> None:
    assert fill("key", text, 64) == value


@pytest.mark.parametrize(
    "text", ["{size}", "{channels**2}", "{__import__('os')}", "{channels.real}", "{}", "{channels", "{min(3)}", "{'a'}"]
)
def test_a_formula_that_is_no_arithmetic_of_widths_is_refused_before_anything_is_built(text) -> None:
    spec = f"pkg.mod:Gate:width={text}"
    if text == "{channels":  # no formula at all: the module gets the text as it is
        assert dict(FusionSpec.parse(spec).options)["width"] == text
        return
    with pytest.raises(SpecError, match="cannot be worked out") as caught:
        FusionSpec.parse(spec)
    assert "{channels//4}" in str(caught.value)


def test_a_formula_whose_result_is_no_width_says_at_which_width() -> None:
    with pytest.raises(SpecError, match=r"width=\{channels/3\} is 2.66667 at 8 channels, no whole number"):
        fill("width", "{channels/3}", 8)
    with pytest.raises(SpecError, match="divides by 0 at 4 channels"):
        fill("width", "{8//(channels-4)}", 4)


def test_the_text_of_a_formula_is_kept_so_that_a_host_can_fill_it_at_each_width() -> None:
    spec = FusionSpec.parse("pkg.mod:Gate:in_channels={channels}")
    assert spec.text == "pkg.mod:Gate:in_channels={channels}"
    assert FusionSpec.parse(spec.text) == spec


def test_a_comma_within_brackets_belongs_to_a_value() -> None:
    assert split_list(["a:b=[1,2],c:d=(3,4),e:f={max(channels,8)}", "g"]) == [
        "a:b=[1,2]",
        "c:d=(3,4)",
        "e:f={max(channels,8)}",
        "g",
    ]
    assert split_list(["a:b=[1,c"]) == ["a:b=[1", "c"]
