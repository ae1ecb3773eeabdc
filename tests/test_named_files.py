"""A fusion of a file, named as people type a path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from afftool.errors import LoadError, SpecError, UnknownName
from afftool.registry import load, module_form, top_level
from afftool.spec import FusionSpec, HostSpec
from afftool.spec.sweep import parse_fusions


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in, with a neighbour beside it; what is imported from either is forgotten."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    modules, path = set(sys.modules), list(sys.path)
    yield folder
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    "typed",
    [
        "nets/blocks.py:Half",
        "./nets/blocks.py:Half",
        "nets/blocks:Half",
        "nets//blocks.py:Half",
        "nets\\blocks.py:Half",
    ],
)
@pytest.mark.usefixtures("here")
def test_a_file_below_the_current_directory_has_one_name_however_it_is_typed(typed) -> None:
    assert FusionSpec.parse(f"{typed}:width=8").text == "nets.blocks:Half:width=8"
    assert FusionSpec.parse(typed).target == HostSpec.parse(typed).target == "nets.blocks:Half"


def test_a_whole_path_below_the_current_directory_is_that_name_too(here) -> None:
    assert module_form(f"{here}/blocks.py:Half") == "blocks:Half"
    assert module_form("../project/blocks.py:Half") == "blocks:Half"
    assert module_form("../blocks.py:Half") == f"{here.parent}/blocks.py:Half"
    assert module_form("my-nets/blocks.py:Half") == f"{here}/my-nets/blocks.py:Half"
    assert module_form("code.py:Half") == f"{here}/code.py:Half"
    assert module_form("nets.blocks:Half") == "nets.blocks:Half"


def test_files_of_one_name_in_two_folders_are_two_modules_in_either_order(here) -> None:
    write(here / "blocks.py", "where = 'here'")
    write(here.parent / "blocks.py", "where = 'above'")
    above = module_form("../blocks.py:where")
    assert [load(above), load("blocks:where"), load(above)] == ["above", "here", "above"]
    assert load(f"{top_level(above)}:where") == "above"


def test_a_file_named_like_a_module_of_pythons_is_the_users(here) -> None:
    write(here / "code.py", "where = 'here'")
    assert load(module_form("code.py:where")) == "here"


def test_a_file_imports_its_neighbours_plainly_and_in_its_package(here) -> None:
    write(here / "nets" / "plain.py", "from beside_plain import where")
    write(here / "nets" / "beside_plain.py", "where = 'beside'")
    write(here / "pack" / "__init__.py", "")
    write(here / "pack" / "deep" / "__init__.py", "")
    write(here / "pack" / "deep" / "gate.py", "from ..top import a\nfrom pack.top import b")
    write(here / "pack" / "top.py", "a, b = 1, 2")
    assert load(module_form("nets/plain.py:where")) == "beside"
    assert load(module_form("pack/deep/gate.py:b")) == 2
    write(here.parent / "other" / "__init__.py", "")
    write(here.parent / "other" / "gate.py", "from .beside import where")
    write(here.parent / "other" / "beside.py", "where = 'other'")
    assert load(module_form("../other/gate.py:where")) == "other"


def test_two_packages_of_one_name_are_told_apart_by_an_error(here) -> None:
    for folder in (here, here.parent):
        write(folder / "twin" / "__init__.py", "")
        write(folder / "twin" / "gate.py", f"where = {str(folder)!r}")
    with pytest.raises(LoadError, match="'twin' is another package here"):
        load(module_form("../twin/gate.py:where"))


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("nets/blocks.py", SpecError, "name what makes the fusion, as nets/blocks.py:Name"),
        ("a:b.py:Half", SpecError, "its path holds no colon"),
        ("blokcs,a.py:Half", UnknownName, "the path of a file cannot hold one"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_path_that_cannot_be_read_as_one_says_how_it_is_written(text, error, says) -> None:
    with pytest.raises(error) as caught:
        parse_fusions([text])
    assert says in str(caught.value)


def test_a_file_that_is_not_there_is_said_by_its_path(here) -> None:
    with pytest.raises(LoadError, match="there is no file"):
        load(module_form("../gone.py:Half"))
    with pytest.raises(LoadError) as caught:
        load(module_form("nets/gone.py:Half"))
    assert "nets/gone.py" in str(caught.value)
