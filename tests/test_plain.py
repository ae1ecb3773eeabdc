"""Plain forms: the stored is read back whole, the hashed keeps its hash, a user's slip is told in words."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from afftool.errors import SpecError, UnknownKey
from afftool.plain import Plain, check_choices, digest, from_plain, from_user, later, to_plain, toml, unsaid
from afftool.record import Environment
from afftool.spec import CaseSpec, FusionSpec
from afftool.study.cells import CellSpec
from afftool.study.recipe import RECIPES, Recipe


@dataclass(frozen=True, kw_only=True)
class Part:
    width: int
    ways: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Whole(Plain):
    name: str
    how: Literal["fast", "slow"] = "fast"
    share: float | None = None
    parts: tuple[Part, ...] = ()
    counts: Mapping[str, int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choices(self, "whole ")
        if self.name == "none":
            raise SpecError("none is no name")


WHOLE = Whole(name="w", parts=(Part(width=3, ways=("a", "b")),), counts={"big": 2**60 + 1, "half": 0.5})


def test_a_dataclass_is_read_back_from_json_whole_and_exactly() -> None:
    assert list(WHOLE.to_dict()) == ["name", "how", "share", "parts", "counts"]
    assert Whole.from_dict(json.loads(json.dumps(WHOLE.to_dict()))) == WHOLE


def test_what_a_newer_version_added_is_left_out() -> None:
    fields = WHOLE.to_dict() | {"zoom": 3}
    fields["parts"][0]["colour"] = "red"
    assert Whole.from_dict(fields) == WHOLE


def test_subclasses_of_text_and_numbers_stay_as_they_are() -> None:
    class Version(str):
        __slots__ = ()

    assert to_plain({"a": Version("2.9"), "b": (np.float64(0.5),)}) == {"a": "2.9", "b": [0.5]}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": 3}, "a thing's name is text, not 3"),
        ({"name": "w", "share": "all"}, "a thing's share is a number, not 'all'"),
        ({"name": "w", "share": True}, "a thing's share is a number, not True"),
        ({"name": "w", "parts": [{"width": 1.5}]}, r"a thing's parts\[0\].width is a whole number, not 1.5"),
        ({"name": "w", "parts": 3}, "a thing's parts is a list, not 3"),
        ({"name": "w", "parts": [3]}, r"a thing's parts\[0\] is a table, not 3"),
        ({"name": "w", "counts": {"a": "b"}}, "a thing's counts.*: Expected"),
        ({}, "a thing: Object missing required field `name`"),
        (3, "a thing is a table, not 3"),
        ({"name": "none"}, "none is no name"),
    ],
)
def test_what_a_user_wrote_is_refused_in_the_users_words(fields: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        from_user(Whole, fields, "a thing")


def test_a_key_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownKey, match="a thing takes no key 'nmae'") as refused:
        from_user(Whole, {"nmae": "w"}, "a thing")
    assert refused.value.hint == "did you mean 'name'?"


def test_a_damaged_row_is_a_type_error_that_names_the_field() -> None:
    with pytest.raises(TypeError, match=r"a Part's width is a whole number, not 'x'"):
        from_plain(Part, {"width": "x"})


def test_a_word_that_is_no_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(SpecError, match=r"whole how='quick' is not allowed") as refused:
        Whole(name="w", how="quick")  # type: ignore[arg-type]
    assert refused.value.hint == "choose from fast, slow"


def test_toml_has_scalars_first_and_one_line_a_key_in_every_section() -> None:
    fields = {"name": "ü", "none": None, "part": [{"a": {"b": 1}}, {"c": [True, 0.5], "d": {}}], "x": {"e": 1}, "y": 2}
    assert toml(fields) == ('name = "ü"\ny = 2\n\n[[part]]\na = { b = 1 }\n\n[[part]]\nc = [true, 0.5]\n\n[x]\ne = 1\n')


@dataclass(frozen=True, kw_only=True)
class LaterCase(CaseSpec):
    zoom: int = later(1)


@dataclass(frozen=True, kw_only=True)
class LaterCell(CellSpec):
    zoom: int = later(1)


@dataclass(frozen=True, kw_only=True)
class LaterMachine(Environment):
    zoom: int | None = later(None)


@dataclass(frozen=True, kw_only=True)
class LaterRecipe(Recipe):
    zoom: int = later(1)


CELL: dict[str, Any] = {
    "fusion": "aff",
    "host": "resnet:b=1",
    "data": "digits",
    "fingerprint": "f",
    "train_images": None,
    "data_seed": 0,
    "recipe": RECIPES["short"],
    "seed": 1,
}


def test_a_field_added_later_enters_a_hash_only_where_it_differs_from_its_default() -> None:
    fusion = FusionSpec.parse("aff")
    assert LaterCase(fusion=fusion).identity == CaseSpec(fusion=fusion).identity == "b20e8dbd7487394a"
    assert LaterCase(fusion=fusion, zoom=2).identity != CaseSpec(fusion=fusion).identity
    assert LaterCell(**CELL).identity == CellSpec(**CELL).identity == "f0978465dfa6f094"
    assert LaterCell(**CELL, zoom=2).identity != CellSpec(**CELL).identity
    machine = {"afftool": "1", "python": "3.11", "torch": "2.9", "cores": 4, "threads": 2, "cpu": "c", "gpu": "g"}
    assert LaterMachine(**machine).fingerprint == Environment(**machine).fingerprint == "8d611456ffdd"
    assert LaterMachine(**machine, zoom=2).fingerprint != Environment(**machine).fingerprint
    assert LaterRecipe().effective() == Recipe().effective()
    assert LaterRecipe(zoom=2).effective() == Recipe().effective() | {"zoom": 2}
    assert unsaid(LaterRecipe()) == {"zoom"}


def test_a_digest_is_over_all_fields_but_those_without_effect() -> None:
    fields = WHOLE.to_dict()
    assert digest(WHOLE, fields) == digest(WHOLE, dict(reversed(fields.items())))
    assert digest(WHOLE, fields) != digest(dataclasses.replace(WHOLE, share=0.5), fields | {"share": 0.5})
    assert digest(WHOLE, fields, without=["name"]) == digest(WHOLE, fields | {"name": "v"}, without=["name"])
    assert len(digest(WHOLE, fields, length=12)) == 12
