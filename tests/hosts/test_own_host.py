"""A host of the user's own: `--host pkg.mod:build`."""

import sys
from pathlib import Path

import pytest
import torch

import afftool.hosts
from afftool.errors import LoadError, UnknownKey
from afftool.hosts import build_host
from afftool.spec import FusionSpec, HostSpec


def _documented_example() -> str:
    assert afftool.hosts.__doc__ is not None
    lines = [line[4:] for line in afftool.hosts.__doc__.splitlines() if line.startswith("    ")]
    return "\n".join(lines) + "\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        _documented_example() + "def number(fusion): return 3\n"
        "def broken(fusion): return fusion(width)\n"
        "def build(fusion, width=8): return Net(fusion, width, classes=4)\n"
    )
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def test_the_documented_example_is_under_ten_lines() -> None:
    assert 0 < len(_documented_example().splitlines()) < 10


def test_the_readme_shows_the_documented_example() -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    shown = "\n".join(line for line in readme.splitlines() if line)  # it is laid out with empty lines
    assert f"```python\n{_documented_example()}```" in shown


@pytest.mark.parametrize("fusion", ["add", "concat", "aff"])
def test_the_documented_example_builds_and_trains(own: str, fusion: str) -> None:
    host = build_host(HostSpec.parse(f"{own}:Net:width=16:classes=5"), FusionSpec.parse(fusion))
    logits = host(torch.randn(2, 3, 15, 12))
    logits.square().mean().backward()
    assert logits.shape == (2, 5)
    assert all(p.grad is not None for p in host.parameters())


def test_a_function_builds_a_host_as_well_as_a_class(own: str) -> None:
    host = build_host(HostSpec.parse(f"{own}:build:width=12"), FusionSpec.parse("aff"))
    assert host(torch.randn(2, 3, 9, 9)).shape == (2, 4)


@pytest.mark.parametrize(
    ("host", "error", "message"),
    [
        ("{own}:Nett", LoadError, "did you mean"),
        ("{own}:Net:depth=3", UnknownKey, "depth"),
        ("{own}:number", LoadError, "not an nn.Module"),
        ("{own}:broken", LoadError, "NameError"),
        ("no_such_nets:build", LoadError, "no module named"),
    ],
)
def test_a_host_that_cannot_be_used_is_explained(own: str, host: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_host(HostSpec.parse(host.format(own=own)), FusionSpec.parse("add"))
