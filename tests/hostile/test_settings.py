"""Settings that others wrote, and numbers that nobody means: one error with a hint, before any work."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afftool import project
from afftool.allocator import toll
from afftool.cli import main
from afftool.errors import AfftoolError, LoadError, SpecError, StoreError, UserError
from afftool.gate import config
from afftool.measure.ceilings.roofline import FILE, Ceilings, CeilingsFile
from afftool.measure.cost.own_formulas import own_formulas
from afftool.profile import summary, trace
from afftool.spec import FusionSpec
from afftool.spec.amounts import MOST_CASES
from afftool.spec.formula import fill
from afftool.spec.sweep import Words, sweep
from afftool.spec.text import split_list
from afftool.study.engines import cluster
from afftool.study.request import Request, batch_chosen, requested
from afftool.study.spec import StudySpec

Refuse = Callable[..., str]

CASE = '[[case]]\nfusion = "add"\nchannels = 4\nsize = 2\n'


@pytest.fixture
def refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """The command in this process, which must end with 2, say so in one error, and leave the folder as it is."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["afftool", *words])
        started = time.monotonic()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2, said
        assert "Traceback" not in said
        assert len(said) < 6000, said
        assert sorted(tmp_path.rglob("*")) == before
        assert time.monotonic() - started < 60
        return said

    return run


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("pyproject.toml", "tool = 3\n", "tool in {file} is no table"),
        ("pyproject.toml", "[[tool]]\nx = 1\n", "tool in {file} is no table"),
        ("pyproject.toml", "tool.afftool = 3\n", "tool.afftool in {file} is no table"),
        ("pyproject.toml", '[[tool.afftool]]\nbaseline = "b"\n', "tool.afftool in {file} is no table"),
        ("pyproject.toml", "a = " + "[" * 100_000, "{file} is nested too deep"),
        ("afftool.toml", "a = " + "[" * 200 + "]" * 200, "{file} is nested too deep"),
        ("afftool.toml", "a = " + "{a=" * 100_000, "{file} is nested too deep"),
        ("afftool.toml", "a." * 5_000 + "a = 1", "{file} is nested too deep"),
        ("afftool.toml", "a = " + "9" * 5000, "holds a number with too many digits"),
        ("afftool.toml", "a = 99999999999999999999", "holds a whole number of more than 64 bits"),
        ("afftool.toml", "a = 0x" + "f" * 100_000, "holds a whole number of more than 64 bits"),
        ("afftool.toml", "\udcff", "is not UTF-8 text (byte 0)"),
    ],
)
def test_toml_that_explodes_or_is_of_another_shape_is_refused_by_its_file(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    file = tmp_path / name
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as caught:
        own_formulas(tmp_path)
    assert words.format(file=file) in caught.value.message
    assert caught.value.hint


def all_settings(file: Path) -> None:
    """What a check reads of a project's file."""
    config.read(file)
    own_formulas(file.parent)


def test_the_command_says_so_too(place: Any, refuses: Callable[..., str]) -> None:
    (place.folder / "pyproject.toml").write_text("tool = 3\n")
    assert "tool in" in refuses(2, "check")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case = 3\n", "not a list of tables"),
        ("case = [3]\n", "not a list of tables"),
        ("[[case.case]]\nfusion = 'add'\n", "not a list of tables"),
        ("[[case]]\nfusion = { a = 1 }\n", "fusion of case 1"),
        ("[[case]]\nfusion = 1979-05-27\n", "fusion of case 1"),
        ("[[case]]\nfusion = [['add']]\n", "fusion of case 1"),
        ("[[case]]\nfusion = 'add'\nsize = 1e999\n", "size of case 1"),
        ("[[case]]\nfusion = 'add'\nbatch = 9223372036854775807\n", "batch 9223372036854775807 is no whole number"),
        ("[[case]]\nfusion = 'add'\nchannels = -1\n", "channels '-1' is no whole number"),
        ("[[case]]\nfusion = 'add'\nsize = '" + "9" * 5000 + "'\n", "size '999999999999...9999999999999' is no whole"),
        ("[[case]]\nfusion = 'add'\ndevice = []\n", "device of case 1"),
        ("[[case]]\nfusion = 'add'\nbackend = []\n" + CASE, "backend of case 1 of afftool.toml is an empty list"),
        ("[[case]]\nfusion = 'add'\nchannels = ['']\n", "channels of case 1 of afftool.toml is an empty list"),
        ("metrics = []\n" + CASE, "metrics of afftool.toml is an empty list"),
        ("[[case]]\nfusion = 'add'\nrules = 3\n", "is not a table"),
        (CASE + "[[rules]]\nmacs = 3\n", "is not a table"),
        (CASE + "[rules.macs.max]\na = 1\n", "is no rule"),
        (CASE + "[rules]\nmacs = [1]\n", "is no rule"),
        (CASE + "[rules]\nmacs = true\n", "is no rule"),
        *((CASE + f"[rules]\nmacs = {number}\n", "is no rule") for number in ("nan", "inf", "-inf", "1e999", "-1")),
        *(
            (CASE + f"[rules]\nmacs = '{number}'\n", "is no rule")
            for number in ("nan%", "inf%", "1e999%", "-1%", "1e999")
        ),
        (CASE + "[rules]\nmacs = '" + "9" * 400 + "%'\n", "is no rule"),
        (CASE + "[rules]\nmacs = { max = nan }\n", "is no rule"),
        (CASE + "[rules]\nmacs = { change = '5%', floor = inf }\n", "is no rule"),
        ("baseline = 3\n" + CASE, "not a path"),
        ("baseline = ''\n" + CASE, "not a path"),
        ('baseline = "a\\u0000b"\n' + CASE, "not a path"),
        ("metrics = { a = 1 }\n" + CASE, "metrics of afftool.toml"),
        ("formulas = 3\n" + CASE, "formulas of afftool.toml are no table"),
        ("[[formulas]]\na = 1\n" + CASE, "formulas of afftool.toml are no table"),
        ("[formulas]\n'a::b' = 3\n" + CASE, "has no function: 3"),
        ("[formulas]\na.b = { c = 1 }\n" + CASE, "is no operator"),
        ("[formulas]\n'a::b' = \"m:f\\u0000\"\n" + CASE, "has no function"),
    ],
)
def test_every_level_of_a_project_s_settings_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afftool.toml").write_text(text)
    with pytest.raises(UserError) as caught:
        all_settings(tmp_path / "afftool.toml")
    assert words in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 300


def test_settings_are_read_from_a_plain_file_of_a_sane_size_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "afftool.toml"
    os.mkfifo(file)
    assert project.find(tmp_path) == file, "a pipe called so is not passed over"
    with pytest.raises(UserError, match="is a pipe, not a file"):
        project.read(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="is a folder, not a file"):
        project.read(file)
    file.rmdir()
    file.symlink_to("nothing")
    with pytest.raises(UserError, match="cannot be read: No such file"):
        project.read(file)
    with pytest.raises(UserError, match="configures the gate already"):
        config.write_starting_file(tmp_path)
    file.unlink()
    with open(file, "wb") as sparse:
        sparse.truncate(100 * 2**20)
    with pytest.raises(UserError, match="is larger than 64 MiB"):
        project.read(file)


def test_settings_that_ask_for_endlessly_many_cases_are_refused_before_one_is_made(tmp_path: Path) -> None:
    numbers = json.dumps(list(range(1, 400)))
    (tmp_path / "afftool.toml").write_text(f'[[case]]\nfusion = "add"\nchannels = {numbers}\nsize = {numbers}\n')
    with pytest.raises(SpecError, match=r"399 \(channels\) x 399 \(size\) make 159,201 cases, .* takes 10,000"):
        config.read(tmp_path / "afftool.toml")
    entries = "".join(f"[[case]]\nfusion = 'add'\nchannels = {n}\nsize = {numbers}\n" for n in range(1, 40))
    (tmp_path / "afftool.toml").write_text(entries)
    with pytest.raises(SpecError, match=r"asks for more than 10,000 cases, up to its case 26"):
        config.read(tmp_path / "afftool.toml")
    eager = json.dumps(["eager"] * 100_000)
    (tmp_path / "afftool.toml").write_text(f"{CASE}backend = {eager}\n")
    assert len(config.read(tmp_path / "afftool.toml").cases) == 1


DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["bench", "-f", "add", "-s", "99999999999999999999"],
            "size 99999999999999999999 is no whole number from 1 to",
        ),
        (["bench", "-f", "add", "-s", DIGITS], "is no whole number from 1 to 2,147,483,647"),
        (["bench", "-f", "add", "-s", "56x" + DIGITS], "is no whole number from 1 to 2,147,483,647"),
        (["bench", "-f", "add", "-b", DIGITS], "batch '999999999999...9999999999999' is no whole number"),
        (["bench", "-f", "add", "-b", "1" + "0" * 30], "is no whole number from 1 to"),
        (["bench", "-f", "add", "-c", "2147483648"], "channels 2147483648 is no whole number from 1 to"),
        (["bench", "-f", "aff:reduction=1e999"], "reduction=1e999 is not a whole number"),
        (["bench", "-f", "aff:reduction=" + "9" * 3000], "reduction=9999"),
        (["bench", "-f", "aff:reduction=" + DIGITS], "a text of 5014 characters is no fusion"),
        (["bench", "-f", "aff:gain=1e999"], "gain=inf is not a usable factor"),
        (["bench", "-f", "aff:gain=nan"], "gain=nan is not a usable factor"),
        (["bench", "-f", "add:inputs=1000000000"], "inputs=1000000000 is no whole number from 2 to 64"),
        (["bench", "-f", "iaff:iterations=1000000000"], "iterations=1000000000 is no whole number from 1 to 64"),
        (["bench", "-f", "aff:scales=1000000000+local"], "scale 1000000000 is not allowed"),
        (["bench", "-f", "aff:scales=" + "+".join(["local"] * 500)], "500 scales are too many"),
        (["bench", "-f", "m:A:maps=999999999999999c@s+c@s"], "is no whole number from 1 to"),
        (["bench", "-f", "add", "--host", "resnet:b=1000000000"], "b=1000000000 is no whole number from 1 to 32,768"),
        (["bench", "-f", "add", "--host", "resnet:width=0"], "width=0 is no whole number"),
        (["bench", "-f", "add", "--host", "resnet:stages=1-99999999999"], "more stages than any host has"),
        *(
            (["bench", "-f", "add", "--budget", word], "--budget must be above 0")
            for word in ("nan", "inf", "1e999", "-1")
        ),
        (["bench", "-f", "add", "--precision", "nan"], "--precision must be between 0 and 1"),
        (["bench", "-f", "add", "--timeout", "nan"], "--timeout must be above 0, not nan"),
        (["bench", "-f", "add", "--processes", "1000000000"], "is no whole number from 1 to 1,000"),
        (["bench", "-f", "add", "--threads", DIGITS], "is no whole number from 1 to 4,096"),
        (["bench", "-f", "add", "--threads", "1000000"], "--threads 1000000 is no whole number from 1 to 4,096"),
        (["check", "-f", "add", "--budget", "nan"], "--budget must be above 0"),
        (["check", "-f", "add", "--budget", "inf"], "--budget must be above 0"),
        (["check", "-f", "add", "--threads", "1000000"], "is not in the range"),
        (["profile", "add", "--steps", "10000000000000"], "is not in the range"),
        (["describe", "aff", "--size", DIGITS], "does not fit 2-dimensional maps"),
        (["describe", "aff", "--channels", "1" + "0" * 30], "is not in the range"),
        (["ablate", "scale", "--seeds", "-1"], "--seeds -1 is no whole number from 1 to 1,000"),
        (["ablate", "scale", "--seeds", "1000000000"], "--seeds 1000000000 is no whole number from 1 to 1,000"),
        (["ablate", "scale", "--seeds", "1" + "0" * 30], "is no whole number from 1 to 1,000"),
        (["ablate", "scale", "--margin", "nan"], "--margin nan is no difference"),
        (["ablate", "scale", "--epochs", "1" + "0" * 30], "is no whole number from 1 to"),
        (["ablate", "scale", "--epochs", "0"], "recipe epochs=0 is no whole number"),
        (["ablate", "scale", "--train-images", "1" + "0" * 30], "is no whole number from 1 to"),
        (["ablate", "scale", "--data-seed", "-1"], "data_seed -1 is no whole number from 0 to"),
        (["ablate", "scale", "--data-seeds", "1" + "0" * 30], "is no number of subsets"),
        (["ablate", "scale", "--recipe", "short:lr=nan"], "recipe lr=nan is not a positive number"),
        (["ablate", "scale", "--recipe", "short:lr=1e999"], "recipe lr=inf is not a positive number"),
        (["ablate", "scale", "--recipe", "short:milestones=nan"], "milestones"),
        (["ablate", "scale", "--shard", "1/" + DIGITS], "is no whole number from 1 to 10,000"),
        (["ablate", "scale", "--workers", "1000000000"], "--workers 1000000000 is no whole number from 0 to 1,000"),
        (["report", DIGITS], "no run"),
        (["compare", DIGITS], "the system says: File name too long"),
        (["bench", "-f", "add", "--lock-clocks", DIGITS], "is no clock"),
        (["bench", "-f", "add", "--device", "cuda:" + DIGITS], "is not a device"),
        (["inspect", "add", "-c", "1" + "0" * 30], "channels 1000000"),
        (["ablate", "scale", "--data", "shapes:size=" + DIGITS], "is no whole number from 1"),
        (["ablate", "scale", "--engine", "ray", "--gpus", "nan"], "--gpus nan is no share of a GPU"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value)[:60],
)
def test_a_number_that_nobody_means_is_refused_before_any_work(refuse: Refuse, words: list[str], problem: str) -> None:
    assert problem in refuse(*words)


def test_a_width_told_by_a_formula_is_a_whole_number_of_some_use() -> None:
    for formula in ("channels*1e999", "1e999-1e999+channels", "9" * 400 + "/1.5*channels", "channels*" + "9" * 300):
        with pytest.raises(SpecError, match=r"is beyond 2,147,483,647|cannot be worked out"):
            fill("width", f"{{{formula}}}", 64)


def test_a_great_many_fusions_in_one_list_have_a_bound_that_is_told_and_below_it_are_quick() -> None:
    many = [f"aff:reduction={n}" for n in range(1, 2001)]
    assert len(sweep(Words(fusion=many, channels=["8192"], size=["2"], baseline=None)).cases) == len(many)
    with pytest.raises(
        SpecError, match=r"2,000 \(fusion\) x 6 \(size\) make 12,000 cases, and one command takes 10,000"
    ):
        sweep(Words(fusion=many, size=list("123456")))
    with pytest.raises(SpecError, match=r"100,000 \(fusion\) are 100,000 cases"):
        sweep(Words(fusion=["add"] * 100_000))
    with pytest.raises(SpecError, match=r"make 15,000 cases"):
        sweep(Words(fusion=["add"], batch=map(str, range(1, 5001)), mode=["infer", "train", "infer"]))
    assert MOST_CASES == 10_000


def test_a_long_text_without_a_comma_is_split_in_a_moment() -> None:
    text = "a" * 5_000_000
    started = time.monotonic()
    assert split_list([text, "b[1,2],c"]) == [text, "b[1,2]", "c"]
    assert time.monotonic() - started < 20
    with pytest.raises(SpecError, match="a text of 5000000 characters is no fusion"):
        FusionSpec.parse(text)


VARIANTS = '[[variant]]\nfusion = "add"\n[[variant]]\nfusion = "aff"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = " + "[" * 100_000, "is nested too deep"),
        ("a = 0x" + "f" * 100_000, "holds a whole number of more than 64 bits"),
        ("seeds = 1000000000\n" + VARIANTS, "seeds 1000000000 is no whole number from 1 to 1,000"),
        ("seeds = -1\n" + VARIANTS, "seeds -1 is no whole number"),
        (f"seeds = {list(range(1001))}\n" + VARIANTS, "the number of seeds 1001 is no whole number"),
        ("seeds = [-1]\n" + VARIANTS, "seed -1 is no whole number from 0 to"),
        ("seeds = [4294967296]\n" + VARIANTS, "seed 4294967296 is no whole number"),
        ("seeds = nan\n" + VARIANTS, "seeds is a list"),
        ("data_seed = 9223372036854775807\n" + VARIANTS, "data_seed 9223372036854775807 is no whole number"),
        ("train_images = 0\n" + VARIANTS, "train_images 0 is no whole number"),
        ("recipe = 3\n" + VARIANTS, "recipe"),
        ("recipe = { lr = nan }\n" + VARIANTS, "recipe lr=nan"),
        ("recipe = { epochs = 1e999 }\n" + VARIANTS, "recipe epochs=inf is not a whole number"),
        ("budget = { tolerance = nan }\n" + VARIANTS, "budget tolerance=nan is not a share"),
        ("budget = 3\n" + VARIANTS, "budget"),
        ("variant = 3\n", "variants are tables"),
        ("variant = [3]\n", "a variant is a table"),
        ("[[variant]]\nfusion = 'add'\nknobs = 3\n", "knobs is a table"),
        ("host = 'resnet:b=99999999999'\n" + VARIANTS, "b=99999999999 is no whole number"),
        (
            "seeds = 1000\n" + "".join(f"[[variant]]\nname='v{n}'\nfusion='add'\n" for n in range(11)),
            "make 11,000 cells",
        ),
    ],
    ids=range(20),
)
def test_a_study_that_others_wrote_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        StudySpec.from_toml(text, source="study.toml")
    assert words in caught.value.message
    assert len(caught.value.message) < 20_000


def test_a_study_is_read_from_a_plain_file_of_a_sane_size_or_refused(tmp_path: Path) -> None:
    pipe, huge, gone = (tmp_path / name for name in ("pipe.toml", "huge.toml", "gone.toml"))
    os.mkfifo(pipe)
    with open(huge, "wb") as sparse:
        sparse.truncate(100 * 2**20)
    for path, words in ((pipe, "it is a pipe"), (huge, "it is larger than 64 MiB"), (gone, "No such file")):
        for read in (requested, batch_chosen):
            with pytest.raises(LoadError, match=f"cannot read the study .*{words}"):
                read(Request(study=str(path)))


PROFILE = {
    "schema": 1,
    "case": {"fusion": "add"},
    "environment": {},
    "tables_from": "own",
    "steps": 1,
    "steps_us": [1.0],
    **{name: [] for name in ("operators", "kernels", "categories", "modules", "gaps", "memory")},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('"steps_us": [NaN]', r"it holds NaN, which is no number \(steps_us: \[0\]\)"),
        ('"steps_us": [1e300]', r"it holds a number beyond 1e\+18"),
        ('"steps": ' + "9" * 400, r"it holds a number beyond 1e\+18"),
        ('"steps": ' + "[" * 100_000, "it is nested too deep"),
        ('"steps": "x"', "steps is a whole number"),
        ('"steps": 1, "steps": 2', "it holds the key 'steps' twice"),
        ('"case": {}', "it names no fusion"),
        ('"case": {"fusion": 3}', "it names no fusion"),
        ('"case": 3', "is not a profile of afftool"),
        ('"operators": [3]', "is not a profile of afftool"),
        ('"schema": 2', "has schema 2"),
    ],
)
def test_a_profile_that_others_wrote_is_refused_in_words(tmp_path: Path, change: str, words: str) -> None:
    key = json.loads("{" + change.split(":")[0] + ":0}").popitem()[0]
    text = json.dumps({name: value for name, value in PROFILE.items() if name != key})
    (tmp_path / "profile.json").write_text(
        f"{text[:-1]}, {change}}}" if "[[" not in change else text[:-1] + ", " + change
    )
    with pytest.raises(LoadError, match=words):
        summary.load(tmp_path / "profile.json")


def test_profiles_of_other_categories_are_compared_by_their_names(tmp_path: Path) -> None:
    from afftool.profile.diff import diff_report

    profiles = []
    for number, rows in enumerate(([("conv", 3.0)], [("norm", 1.0), ("conv", 2.0)])):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(PROFILE | {"categories": [{"category": c, "step_us": us} for c, us in rows]}))
        profiles.append(summary.load(path))
    [table, *_] = diff_report(*profiles).tables
    assert [row[0][1] for row in table.shown_rows()] == ["conv", "norm"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"traceEvents": ' + b"[" * 100_000, "nested too deep"),
        (b'{"traceEvents": [3]}', "is no event"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel"}]}', "is no event"),
        (b'{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "a", "ts": "x", "dur": 1}]}', "is no event"),
        (b'{"traceEvents": [{"ph": "X", "cat": [], "name": "a"}]}', "is no event"),
        (b'{"traceEvents": [{"ph": "i", "name": "[memory]", "ts": 1, "args": {"Bytes": NaN}}]}', "is no event"),
        (b'{"traceEvents": [{"cat": "fwdbwd"}]}', "is no event"),
        (b'{"traceEvents": [], "deviceProperties": [{"id": "x", "name": 1}]}', "is no event"),
        (b'{"traceEvents": 1' + b"9" * 5000 + b"}", "is not a readable trace"),
    ],
)
def test_a_trace_of_another_kind_is_refused_in_words(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "trace.json").write_bytes(data)
    with pytest.raises(LoadError, match=words):
        trace.parse(trace.load_document(tmp_path / "trace.json"))


def test_a_trace_that_unpacks_beyond_its_bound_or_is_no_gzip_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "LARGEST_BYTES", 2**20)
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(bytes(50 * 2**20)))
    with pytest.raises(LoadError, match="it is larger than 1 MiB unzipped"):
        trace.load_document(path)
    path.write_bytes(gzip.compress(b"{}")[:-9] + b"garbage..")
    with pytest.raises(LoadError, match="is not a readable trace"):
        trace.load_document(path)
    path.write_bytes(bytes(2**20 + 1))
    with pytest.raises(LoadError, match="it is larger than 1 MiB"):
        trace.load_document(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LoadError, match="it is a pipe"):
        trace.load_document(path)


GOOD = {"device": "cpu", "bandwidths": [[1, 1e9]], "flops_per_s": {"float32": 1e9}, "launch_s": 1e-6}


@pytest.mark.parametrize(
    "change",
    [
        {"bandwidths": []},
        {"bandwidths": [[1, 0.0]]},
        {"bandwidths": [[-1, 1e9]]},
        {"bandwidths": [[1, 1e300]]},
        {"bandwidths": 3},
        {"flops_per_s": {"float32": 0.0}},
        {"flops_per_s": {"bfloat16": 1e9}},
        {"launch_s": -1.0},
        {"launch_s": "fast"},
        {"graph_launch_s": 1e6},
    ],
)
def test_ceilings_that_would_bound_nothing_are_refused_as_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / FILE
    file.write_text(json.dumps({"schema": 1, "machines": {"here": {"cpu": GOOD}}}))
    assert isinstance(CeilingsFile.beside(tmp_path / "s").find("here", "cpu"), Ceilings)
    file.write_text(json.dumps({"schema": 1, "machines": {"here": {"cpu": GOOD | change}}}))
    with pytest.raises(StoreError, match="is damaged"):
        CeilingsFile.beside(tmp_path / "s").find("here", "cpu")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": 1, "machines": {"a": {"cpu": {"launch_s": NaN}}}}', "it holds NaN, which is no number"),
        ("[" * 100_000, "it is nested too deep"),
        ("[1]", "is not a calibration"),
        ('{"schema": 1, "machines": {"a": 3}}', "holds no machines"),
    ],
)
def test_a_calibration_that_others_wrote_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(StoreError, match=words):
        CeilingsFile.beside(tmp_path / "s")


@pytest.mark.parametrize("said", ["", "nothing", "[3]", "3", '[{"Alive": true}]', "[" * 100_000])
def test_what_a_cluster_or_a_probe_says_that_is_no_answer_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    class Ended:
        returncode, stdout, stderr = 0, said, ""

    monkeypatch.setattr(cluster.subprocess, "run", lambda *_, **__: Ended)
    with pytest.raises(AfftoolError, match="does not say what it has"):
        cluster.nodes_at("auto")
    assert toll() is None
