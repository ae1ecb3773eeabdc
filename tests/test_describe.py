from __future__ import annotations

import dataclasses

import pytest

from afftool import catalog
from afftool.cli.describe import MEANINGS
from afftool.spec import CaseSpec, FusionSpec, Grammar
from afftool.spec.closed_form import Polynomial, closed_form

VARIANTS = [
    *catalog.FUSIONS,
    "aff:scales=local+3+global",
    "aff:inputs=3",
    "iaff:iterations=3:norm=none",
    "ms-gau:inputs=3",
    "half-aff:reduction=3",
    "concat-aff:scales=global+global",
    "recursive-aff:inputs=3",
    "aff:scales=local+2+global:ndim=3",
]


@pytest.mark.parametrize("text", VARIANTS)
@pytest.mark.parametrize(("channels", "extent"), [(64, 7), (50, 4)])
def test_the_closed_form_says_what_is_counted_on_the_built_module(text: str, channels: int, extent: int) -> None:
    from afftool.measure.cost.count import count

    fusion = FusionSpec.parse(text)
    assert fusion.grammar is not None
    counted = count(CaseSpec(fusion=fusion, channels=channels, size=(extent,) * fusion.ndim, batch=1))
    form = closed_form(fusion.grammar)
    values = form.values(channels, extent**fusion.ndim)
    assert (form.params.at(values), form.macs.at(values)) == (counted.params, counted.macs)


def test_polynomials_multiply_and_read_like_formulas() -> None:
    c, p = Polynomial({"C": 1}), Polynomial({"P": 2, "": 3})
    assert str(c * c * p + c) == "2 C^2 P + 3 C^2 + C"
    assert str(Polynomial()) == "0"
    assert (c * p).at({"C": 5, "P": 10}) == 115


def test_every_knob_of_the_grammar_is_explained() -> None:
    assert set(MEANINGS) == {f.name for f in dataclasses.fields(Grammar)}
