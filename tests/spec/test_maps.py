"""Fusions of unequal maps, and of more than two: how they are told, and what they are compared with."""

from __future__ import annotations

import pytest

from afftool.errors import SpecError
from afftool.spec import CaseSpec, FusionSpec, HostSpec
from afftool.spec.sweep import Words, baseline_of, sweep, without_baseline

TWO = "styles:Two:maps=c@s+2c@s/2"


@pytest.mark.parametrize(
    ("maps", "shapes"),
    [
        ("c@s+2c@s/2", [(8, 7, 6), (16, 4, 3)]),
        ("c+2c", [(8, 7, 6), (16, 7, 6)]),
        ("c/2@2s+c@s+64@1", [(4, 14, 12), (8, 7, 6), (64, 1, 1)]),
        ("8@7x6+16@14x12", [(8, 7, 6), (16, 14, 12)]),
        ("2*c@s/4+c@s", [(16, 2, 2), (8, 7, 6)]),
    ],
)
def test_maps_are_told_in_numbers_or_by_the_cases_channels_and_size(maps, shapes) -> None:
    fusion = FusionSpec.parse(f"styles:Two:maps={maps}")
    assert list(fusion.map_shapes(8, (7, 6))) == shapes
    assert fusion.inputs == len(shapes)
    case = CaseSpec(fusion=fusion, channels=8, size=(7, 6), batch=3)
    assert list(case.input_shapes()) == [(3, *shape) for shape in shapes]
    assert FusionSpec.parse(fusion.text) == fusion


def test_a_cases_inputs_are_its_fusions_maps_or_its_hosts_images() -> None:
    assert (
        CaseSpec(fusion=FusionSpec.parse("aff:inputs=3"), channels=16, size=(4, 5), batch=2).input_shapes()
        == ((2, 16, 4, 5),) * 3
    )
    host = HostSpec.parse("resnet")
    assert CaseSpec(fusion=FusionSpec.parse("aff"), host=host, channels=None, size=(32, 32)).input_shapes() == (
        (8, 3, 32, 32),
    )


@pytest.mark.parametrize("maps", ["64@", "@56", "c@s+", "x=64@56", "c@c", "s@s", "64@56+2d@s", "c/0@s+c@s", "-c@s"])
def test_maps_that_are_not_written_so_are_refused_with_the_way_to_write_them(maps) -> None:
    with pytest.raises(SpecError) as caught:
        FusionSpec.parse(f"styles:Two:maps={maps}").map_shapes(8, (4, 4))
    assert "maps=c@s+2c@s/2" in str(caught.value)


def test_a_modules_own_keys_of_these_names_stay_its_own() -> None:
    fusion = FusionSpec.parse("pkg.mod:Gate:maps=3:inputs=wide:call=me")
    assert (fusion.maps, fusion.inputs, fusion.call, fusion.tells_inputs) == (None, 2, None, False)


def test_maps_in_numbers_that_are_not_the_cases_say_which_options_are() -> None:
    fusion = FusionSpec.parse("styles:Two:maps=96@28+192@14")
    with pytest.raises(SpecError, match=r"no map of .* has 64 channels and the size 56x56") as caught:
        CaseSpec(fusion=fusion)
    assert "--channels 96 --size 28x28" in str(caught.value)
    assert CaseSpec(fusion=fusion, channels=96, size=(28, 28)).input_shapes()[1] == (8, 192, 14, 14)


@pytest.mark.parametrize(
    ("text", "says"),
    [("m:A:inputs=0", "inputs=0 is not allowed"), ("m:A:inputs=3:maps=c@s+2c@s", "tells 2 maps and inputs=3")],
)
def test_a_number_of_maps_that_cannot_be_is_refused(text, says) -> None:
    with pytest.raises(SpecError, match=says):
        FusionSpec.parse(text)


def test_a_host_fuses_maps_of_one_shape() -> None:
    with pytest.raises(SpecError, match="two 2-dimensional maps of one shape at a time"):
        sweep(Words(fusion=[TWO], host=["resnet"]))


@pytest.mark.parametrize(
    ("fusion", "baseline", "serves"),
    [
        ("m:A:inputs=3", "add", "add:inputs=3"),
        ("m:A:maps=c@s+c@s+c@s", "add", "add:inputs=3"),
        (TWO, "add", None),
        (TWO, "m:B:maps=c@s+2c@s/2", "m:B:maps=c@s+2c@s/2"),
        (TWO, "m:B:maps=c@s+4c@s/2", None),
        ("m:A:inputs=1", "add", None),
        ("m:A:inputs=3", "m:B", None),
        ("m:A:inputs=3", "m:B:inputs=3", "m:B:inputs=3"),
        ("aff", TWO, None),
    ],
)
def test_a_baseline_fuses_the_same_maps_or_there_is_none(fusion, baseline, serves) -> None:
    found = baseline_of(FusionSpec.parse(fusion), FusionSpec.parse(baseline))
    assert (found and found.text) == serves


def test_a_fusion_without_a_baseline_is_measured_alone_and_that_is_said() -> None:
    planned = sweep(Words(fusion=[TWO, "m:A:inputs=3"]))
    assert [case.fusion.text for case in planned.cases] == ["add:inputs=3", TWO, "m:A:inputs=3"]
    assert without_baseline((case.fusion for case in planned.cases), planned.baseline) == [
        f"{TWO} has no baseline: add cannot fuse its 2 maps of unequal shapes"
    ]
