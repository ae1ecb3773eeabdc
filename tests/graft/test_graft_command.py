"""`afftool graft`: the sites of a network in a table, what fusions cost there, and the files it writes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from afftool.cli import app
from afftool.errors import AfftoolError, LoadError, ShapeError, SpecError, UnknownKey, UnknownName
from afftool.fusion import build_fusion
from afftool.spec import CaseSpec, FusionSpec, HostSpec

NET = "networks_to_graft:UNet"
SMALL = ("--size", "16")


def run(*words: str) -> str:
    return CliRunner().invoke(app, ["graft", *words], catch_exceptions=False).stdout


def document(*words: str) -> dict:
    return json.loads(run(*words, "--json"))


def refused(kind: type[AfftoolError], *words: str) -> str:
    with pytest.raises(kind) as error:
        run(*words)
    return str(error.value)


def test_every_site_is_a_row_with_its_place_and_the_skip_first() -> None:
    text = run(NET, *SMALL)
    rows = [line.split() for line in text.splitlines() if line.strip()[:1].isdigit()]
    assert [row[:3] for row in rows[:4]] == [
        ["1", "add", "top.0"],
        ["2", "add", "top.1"],
        ["3", "add", "low.0"],
        ["4", "add", "low.1"],
    ]
    assert [row[4:] for row in rows[2:4]] == [["2", "16+16", "8x8", "short-skip", "2"]] * 2
    assert "8+16" in rows[4]
    assert "long-skip" in rows[4]
    assert "4 additions and 1 concatenation in 2 stages" in text
    assert "batch and size are free" in text


def test_the_printed_host_is_the_one_that_the_options_say() -> None:
    text = run(NET, *SMALL, "--at", "add:stage=2", "--share", "--init", "neutral", "--fusion", "iaff")
    line = next(line for line in text.splitlines() if "afftool bench" in line)
    words = line.partition("--host ")[2].split()
    host = HostSpec.parse(words[0].strip("'"))
    assert dict(host.options) == {"at": "add", "stage": "2", "share": "true", "init": "neutral"}
    assert words[1:] == ["--fusion", "iaff", "--size", "16x16"]


def test_what_fusions_add_is_counted_and_adapters_stand_apart() -> None:
    costs = document(NET, *SMALL, "--fusion", "aff")["costs"]
    added = costs["added"]
    assert [one["numbers"] for one in added] == [[1], [2], [3], [4], [5]]
    widths = [8, 8, 16, 16, 16]
    bare = [sum(p.numel() for p in build_fusion("aff", channels=width).parameters()) for width in widths]
    assert [one["params"] for one in added] == bare
    assert [one["adapter_params"] for one in added] == [0, 0, 0, 0, (8 * 16 + 16) + (16 * 24 + 24)]
    assert added[4]["adapter_macs"] == 16 * 16 * (8 * 16 + 16 * 24)
    for number in ("params", "macs"):
        more = sum(one[number] + one[f"adapter_{number}"] for one in added)
        assert costs["graft"][number] - costs["original"][number] == more


def test_sites_that_share_a_fusion_stand_in_one_row() -> None:
    added = document(NET, *SMALL, "--fusion", "aff", "--share", "--at", "add")["costs"]["added"]
    assert [one["numbers"] for one in added] == [[1, 2], [3, 4]]


def test_sites_that_are_not_chosen_are_shown_too() -> None:
    sites = document(NET, *SMALL, "--at", "concat")["sites"]
    assert [site["chosen"] for site in sites] == [False, False, False, False, True]
    assert [site["chosen"] for site in document(NET, *SMALL)["sites"]] == [None] * 5


def test_only_sites_of_one_width_are_chosen_where_no_map_may_be_projected() -> None:
    sites = document(NET, *SMALL, "--only-equal")["sites"]
    assert [site["number"] for site in sites if site["chosen"]] == [1, 2, 3, 4]


def test_two_inputs_are_told_with_a_comma() -> None:
    found = document("networks_to_graft:TwoInputs", "--inputs", "3x16x16,1x16x16")
    assert found["inputs"] == [[1, 3, 16, 16], [1, 1, 16, 16]]
    assert len(found["sites"]) == 5


def test_a_part_is_grafted_where_the_whole_cannot_be() -> None:
    found = document("networks_to_graft:LooksAtValues", *SMALL, "--inside", "body")
    assert len(found["sites"]) == 5


def test_a_size_that_the_network_fixes_is_said() -> None:
    text = run("networks_to_graft:OneSize", *SMALL)
    assert "the size is fixed at 16x16 by the network, the batch is free" in text


def test_a_report_is_written_in_every_format(tmp_path) -> None:
    run(NET, *SMALL, "--at", "add", "--out", str(tmp_path / "found"), "--format", "md,csv,json,html")
    assert {file.suffix for file in (tmp_path / "found").iterdir()} == {".md", ".csv", ".json", ".html"}
    lines = (tmp_path / "found" / "graft.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert rows[4]["channels"] == "8+16"
    assert rows[4]["chosen"] == "False"


def test_the_picture_fills_the_chosen_sites(tmp_path) -> None:
    run(NET, *SMALL, "--at", "1+5", "--draw", str(tmp_path / "net.svg"))
    picture = ElementTree.parse(tmp_path / "net.svg")
    filled = [g for g in picture.iter() if (g.get("class") or "").endswith(" chosen")]
    assert len(filled) == 2


def test_the_shapes_of_a_network_are_cases_with_the_number_of_their_sites(tmp_path) -> None:
    file = tmp_path / "cases.toml"
    run(NET, *SMALL, "--shapes", str(file), "--batch", "4", "--fusion", "iaff")
    cases = tomllib.loads(file.read_text())["case"]
    assert [(case["channels"], case["size"], case["sites"]) for case in cases] == [
        (8, "16x16", 2),
        (16, "8x8", 2),
        (16, "16x16", 1),
    ]
    for case in cases:
        assert case["fusion"] == ["add", "iaff"]
        size = tuple(map(int, case["size"].split("x")))
        for fusion in case["fusion"]:
            CaseSpec(fusion=FusionSpec.parse(fusion), channels=case["channels"], size=size, batch=case["batch"])


@pytest.mark.long
def test_a_file_of_somebody_elses_is_replaced_by_force_alone_and_refused_before_any_work(tmp_path) -> None:
    for option, name in (("--save", "net.py"), ("--draw", "net.svg"), ("--shapes", "net.toml")):
        file = tmp_path / name
        file.write_text("x = 1\n")
        words = (NET, *SMALL, "--fusion", "aff", option, str(file))
        assert f"another file by {option}, or replace this one by --force" in refused(LoadError, *words)
        run(*words, "--force")
        written = file.read_text()
        assert "written by afftool" in written or "drawn by afftool" in written
        run(*words)  # it is ours now


def test_a_network_that_needs_two_inputs_is_told_how_they_are_given() -> None:
    told = refused(SpecError, "networks_to_graft:TwoInputs", *SMALL)
    assert "takes 2 inputs (image, mask)" in told
    assert "--inputs 3x224x224,1x224x224" in told


def test_a_network_that_joins_nothing_is_refused() -> None:
    assert "adds and concatenates no maps" in refused(SpecError, "networks_to_graft:JoinsNothing", *SMALL)


def test_a_site_number_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert "no site 9: its sites are 1 to 5" in refused(SpecError, NET, *SMALL, "--at", "9", "--fusion", "aff")


def test_a_stage_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert "no stage 4: its stages are 1 to 2" in refused(SpecError, NET, *SMALL, "--at", "stage=4")


def test_a_fusion_that_changes_the_shape_is_refused_before_it_is_counted() -> None:
    told = refused(ShapeError, NET, *SMALL, "--fusion", "networks_to_graft:HalfAsWide")
    assert "site 1 (add in top.0" in told


def test_a_network_that_cannot_be_exported_is_refused_with_its_line_and_what_to_do() -> None:
    told = refused(LoadError, "networks_to_graft:LooksAtValues", *SMALL)
    assert "`if image.sum() > 0:`" in told
    assert "networks_to_graft.py:" in told
    assert "--inside" in told


def test_a_size_that_it_does_not_run_on_is_told_as_that() -> None:
    told = refused(LoadError, NET, "--size", "15")
    assert "does not run on (2, 3, 15, 15)" in told
    assert "--size and --inputs" in told


@pytest.mark.parametrize(
    ("kind", "words", "told"),
    [
        (LoadError, ["networks_to_graft:Unet"], "did you mean networks_to_graft:UNet?"),
        (LoadError, ["networks_to_draft:UNet"], "no module named 'networks_to_draft'"),
        (SpecError, ["resnet50"], "a network is written pkg.mod:build"),
        (LoadError, ["networks_to_graft:no_network"], "gave a int, not an nn.Module"),
        (UnknownKey, [f"{NET}:widht=8"], "takes no key 'widht'"),
        (SpecError, [NET, "--at", "everywhere"], "at=everywhere names no sites"),
        (SpecError, [NET, "--at", "0"], "sites count from 1"),
        (UnknownName, [NET, "--at", "add:stge=2"], "did you mean 'stage'?"),
        (UnknownName, [NET, "--fusion", "iaf"], "did you mean 'iaff'?"),
        (SpecError, [NET, "--fusion", "original"], "leave --fusion out"),
        (SpecError, [NET, "--init", "zero"], "choose from paper, neutral"),
        (SpecError, [NET, "--inputs", "3,x"], "are no shapes"),
        (SpecError, [NET, "--save", "grafted.py"], "for example --fusion iaff"),
        (SpecError, [NET, "--inside", "bottom"], "its parts are stem, top, down, low, after, head"),
        (SpecError, [NET, "--call", "a:b"], "cannot be read back"),
        (SpecError, [NET, "--inputs", "3x16x16", "--size", "32"], "has size 16x16, and 32x32 was asked for"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(kind, words, told) -> None:
    assert told in refused(kind, *words)


def test_describe_shows_the_sites_of_a_graft() -> None:
    described = CliRunner().invoke(app, ["describe", f"graft:{NET}:at=add", *SMALL], catch_exceptions=False).stdout
    assert "4 additions in 2 stages" in described
    assert "low.1" in described


@pytest.mark.parametrize(
    "words", [["--help"], ["resnet50"], [NET, "--fusion", "iaf"], [NET, "--at", "foo"], [NET, "--size", "big"]]
)
def test_help_and_typos_are_answered_without_torch(words, tmp_path) -> None:
    script = "import sys; from afftool.cli import app\ntry: app(['graft', *sys.argv[1:]])\n"
    script += "finally: print('torch' in sys.modules, file=sys.stderr)"
    known = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), *sys.path]))
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": known},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "False" in done.stderr
    assert "True" not in done.stderr
