from __future__ import annotations

from typing import Any

import pytest

from afftool import catalog
from afftool.errors import SpecError, UnknownKey, UnknownName
from afftool.spec import FusionSpec
from afftool.spec.sweep import Words, baseline_of, parse_fusions, sweep


def cases(**words: Any) -> list[str]:
    return [str(case.fusion) for case in sweep(Words(**words)).cases]


def test_the_baseline_is_measured_along_and_comes_first() -> None:
    assert cases(fusion=["iaff"]) == ["add", "iaff"]
    assert cases(fusion=["iaff,add"]) == ["add", "iaff"]
    assert cases(fusion=["iaff"], baseline="none") == ["iaff"]
    assert cases(fusion=["iaff"], baseline="aff:reduction=16") == ["aff:reduction=16", "iaff"]


def test_lists_are_comma_separated_or_repeated_and_make_every_combination_once() -> None:
    planned = sweep(
        Words(
            fusion=["aff,iaff", "aff"],
            channels=["32,64"],
            size=["14", "7x9"],
            batch=["2,4", "2"],
            mode=["infer,train"],
            dtype=["float32,bfloat16"],
            memory_format=["contiguous,channels_last"],
            baseline="none",
        )
    )
    assert len(planned.cases) == 2 * 2 * 2 * 2 * 2 * 2 * 2
    assert len({case.identity for case in planned.cases}) == len(planned.cases)
    assert {case.size for case in planned.cases} == {(14, 14), (7, 9)}


def test_defaults_are_those_of_the_host() -> None:
    (module,) = sweep(Words(fusion=["add"])).cases
    assert (module.channels, module.size, module.batch) == (64, (56, 56), 8)
    (resnet,) = sweep(Words(fusion=["add"], host=["resnet50"])).cases
    assert (resnet.channels, resnet.size) == (None, (224, 224))


def test_all_is_every_fusion_of_the_catalog() -> None:
    assert {f.name for f in parse_fusions(["all"])} >= set(catalog.FUSIONS)


def test_a_combination_that_cannot_be_is_skipped_with_its_reason_and_the_rest_stays() -> None:
    planned = sweep(Words(fusion=["aff", "aff:reduction=64"], channels=["32", "128"]))
    assert sorted((str(c.fusion), c.channels) for c in planned.cases) == [
        ("add", 32),
        ("add", 128),
        ("aff", 32),
        ("aff", 128),
        ("aff:reduction=64", 128),
    ]
    (skipped,) = planned.skipped
    assert (skipped.status, skipped.fusion, skipped.channels) == ("skipped", "aff:reduction=64", 32)
    assert (skipped.height, skipped.width) == (56, 56)
    assert "32 channels cannot be reduced by 64" in str(skipped.reason)


def test_channels_are_skipped_for_hosts_that_decide_their_own() -> None:
    planned = sweep(Words(fusion=["aff"], host=["module", "resnet"], channels=["32"]))
    assert {case.host.name for case in planned.cases} == {"module"}
    assert {record.host for record in planned.skipped} == {"resnet"}
    assert {record.scenario for record in planned.skipped} == {"short-skip"}


def test_the_first_reason_is_the_error_if_no_requested_combination_can_be() -> None:
    with pytest.raises(SpecError, match="16 channels cannot be reduced by 64"):
        sweep(Words(fusion=["aff:reduction=64"], channels=["16"]))  # the baseline alone would be possible
    with pytest.raises(SpecError, match="decides its own channels"):
        sweep(Words(fusion=["aff"], host=["resnet"], channels=["16"]))


def test_a_baseline_that_cannot_be_is_skipped_and_does_not_stop_the_rest() -> None:
    planned = sweep(Words(fusion=["aff"], channels=["16"], baseline="aff:reduction=64"))
    assert [str(case.fusion) for case in planned.cases] == ["aff"]
    assert [record.fusion for record in planned.skipped] == ["aff:reduction=64"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"fusion": ["iaf"]}, UnknownName),
        ({"fusion": ["aff:reductoin=4"]}, UnknownKey),
        ({"fusion": ["aff:reduction=banana"]}, SpecError),
        ({"fusion": ["their.mod:Gate:ndim=abc"]}, SpecError),
        ({"fusion": []}, SpecError),
        ({"fusion": ["aff"], "host": ["resnet5"]}, UnknownName),
        ({"fusion": ["aff"], "baseline": "ad"}, UnknownName),
        ({"fusion": ["aff"], "size": ["56", "big"]}, SpecError),
        ({"fusion": ["aff"], "size": ["0"]}, SpecError),
        ({"fusion": ["aff"], "channels": ["64", "many"]}, SpecError),
        ({"fusion": ["aff"], "channels": ["0"]}, SpecError),
        ({"fusion": ["aff"], "batch": ["-1"]}, SpecError),
        ({"fusion": ["aff"], "mode": ["training"]}, UnknownName),
        ({"fusion": ["aff"], "dtype": ["float32,fp16"]}, UnknownName),
        ({"fusion": ["aff"], "memory_format": ["nhwc"]}, UnknownName),
    ],
)
def test_a_word_that_means_nothing_is_an_error_with_a_hint(words: dict[str, Any], error: type[SpecError]) -> None:
    with pytest.raises(error) as refusal:
        sweep(Words(**words))
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("fusion", "baseline"),
    [
        ("aff", "add"),
        ("aff:ndim=1", "add:ndim=1"),
        ("iaff:inputs=3:ndim=3", "add:ndim=3:inputs=3"),
        ("my.mod:Gate", "add"),
    ],
)
def test_the_baseline_fuses_as_many_maps_of_as_many_dimensions(fusion: str, baseline: str) -> None:
    assert baseline_of(FusionSpec.parse(fusion), FusionSpec.parse("add")).text == baseline


def test_maps_of_other_dimensions_take_the_sizes_that_fit_them() -> None:
    planned = sweep(Words(fusion=["aff:ndim=1", "aff"], size=["24", "8x9"]))
    assert {(str(c.fusion), c.size) for c in planned.cases} == {
        ("add:ndim=1", (24,)),
        ("aff:ndim=1", (24,)),
        ("add", (24, 24)),
        ("aff", (24, 24)),
        ("add", (8, 9)),
        ("aff", (8, 9)),
    }
    assert {record.fusion for record in planned.skipped} == {"add:ndim=1", "aff:ndim=1"}


def test_the_device_is_put_in_once_it_is_known() -> None:
    planned = sweep(Words(fusion=["aff", "aff:reduction=128"])).on_device("cuda:0")
    assert {case.device for case in planned.cases} == {"cuda:0"}
    assert {record.device for record in planned.skipped} == {"cuda:0"}
