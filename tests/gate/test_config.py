"""What a project asks of the gate, read from its TOML."""

import pytest

from afftool.errors import UnknownName, UserError
from afftool.gate import config
from afftool.project import find


def write(folder, text, name="afftool.toml"):
    (folder / name).write_text(text)
    return folder / name


def test_the_simplest_file_is_read(tmp_path):
    found = config.read(
        write(
            tmp_path, '[[case]]\nfusion = "mypkg.gates:MyGate"\nchannels = 64\nsize = 56\n[rules]\nlatency_ms = "5%"\n'
        )
    )
    [case] = found.cases
    assert case.name == "mypkg.gates:MyGate channels=64 size=56x56 batch=8"
    assert case.spec.fusion.target == "mypkg.gates:MyGate"
    assert found.rules.find(case.name, "latency_ms").share == 0.05
    assert found.reference == tmp_path / "afftool-baseline.json"


def test_the_starting_file_is_valid_as_it_is_and_with_every_comment_taken_off(tmp_path):
    written = config.write_starting_file(tmp_path)
    assert [case.spec.fusion.text for case in config.read(written).cases] == ["aff"]
    lines = written.read_text().splitlines()
    offered = [line.removeprefix("# ") if line.startswith("# ") and " = " in line else line for line in lines]
    seen, kept = set(), []
    for line in offered:
        key = line.partition(" = ")[0]
        kept += [] if " = " in line and key in seen else [line]
        seen.add(key)
    for line in (line for line in offered if line.startswith("latency_ms = {")):
        kept = [line if old.startswith("latency_ms") else old for old in kept]
    text = "\n".join(kept)
    assert 'mode = "train"' in text
    assert "floor" in text
    config.read(write(tmp_path, text, "all.toml"))


def test_the_starting_file_never_overwrites(tmp_path):
    write(tmp_path, "[tool.afftool]\n", "pyproject.toml")
    with pytest.raises(UserError, match=r"pyproject\.toml configures"):
        config.write_starting_file(tmp_path)


def test_pyproject_is_read_and_afftool_toml_goes_before_it(tmp_path):
    project = write(tmp_path, '[[tool.afftool.case]]\nfusion = "iaff"\n', "pyproject.toml")
    assert find(tmp_path) == project
    assert config.read(project).cases[0].spec.fusion.text == "iaff"
    own = write(tmp_path, '[[case]]\nfusion = "add"\n')
    assert find(tmp_path) == own


def test_a_pyproject_of_another_tool_configures_nothing(tmp_path):
    write(tmp_path, "[tool.other]\nx = 1\n", "pyproject.toml")
    assert find(tmp_path) is None


def test_lists_make_every_combination_with_its_own_rules(tmp_path):
    found = config.read(
        write(
            tmp_path,
            '[[case]]\nfusion = ["aff", "iaff"]\nchannels = [32, 64]\nbackend = ["eager", "compile"]\n'
            'rules = { macs = "1%" }\n[[case]]\nfusion = "add"\n[rules]\nmacs = "2%"\nparams = { max = 9 }\n',
        )
    )
    assert len(found.cases) == 9
    names = [case.name for case in found.cases]
    assert "iaff channels=32 size=56x56 batch=8 backend=compile" in names
    assert found.rules.find(names[0], "macs").share == 0.01
    assert found.rules.find(names[-1], "macs").share == 0.02


def test_a_combination_that_cannot_be_is_kept_with_its_reason(tmp_path):
    found = config.read(write(tmp_path, '[[case]]\nfusion = "aff:reduction=16"\nchannels = [8, 64]\n'))
    assert len(found.cases) == 1
    assert "8 channels cannot be reduced by 16" in found.skipped[0][1]


def test_all_stands_for_every_fusion(tmp_path):
    assert len(config.read(write(tmp_path, '[[case]]\nfusion = "all"\n')).cases) >= 20


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ('[[cases]]\nfusion = "aff"\n', "unknown key in afftool.toml: 'cases'", "case"),
        ('[[case]]\nfusoin = "aff"\n', "unknown key in case 1 of afftool.toml: 'fusoin'", "fusion"),
        ('[[case]]\nfusion = "aff"\n[rules]\nlatencyms = "5%"\n', "latencyms", "latency_ms"),
        ('[[case]]\nfusion = "afff"\n', "unknown fusion 'afff'", "aff"),
        ('[[case]]\nfusion = "aff"\nbackend = "compil"\n', "unknown backend 'compil'", "compile"),
        ("[[case]]\nchannels = 3\n", "has no fusion", "fusion ="),
        ("[rules]\n", "names no case", "[[case]]"),
        ('[case]\nfusion = "aff"\n', "not a list of tables", "two brackets"),
        ('[[case]]\nfusion = "aff"\nchannels = 1.5\n', "channels of case 1", "whole number"),
        ('[[case]]\nfusion = "aff"\ndevice = ["cpu", "cuda"]\n', "device of case 1", "one case a device"),
        ('[[case]]\nfusion = "aff"\n[rules]\nmacs = "five"\n', "macs", "5%"),
        ('baseline = 3\n[[case]]\nfusion = "aff"\n', "not a path", "afftool-baseline.json"),
        ('metrics = ["speed"]\n[[case]]\nfusion = "aff"\n', "unknown metric 'speed'", "exact"),
        ("[[case]\n", "is not TOML", ""),
    ],
)
def test_wrong_files_are_refused_with_a_hint(tmp_path, text, problem, hint):
    with pytest.raises(UserError) as refused:
        config.read(write(tmp_path, text))
    assert problem in refused.value.message
    assert hint in refused.value.hint


def test_a_missing_file_says_how_to_start(tmp_path):
    with pytest.raises(UserError, match="cannot be read") as refused:
        config.read(tmp_path / "afftool.toml")
    assert "--init" in refused.value.hint


def test_a_case_s_name_tells_everything_that_is_not_the_default():
    with pytest.raises(UnknownName):
        config.parse({"case": [{"fusion": "aff", "mode": "trian"}]}, config.Path("afftool.toml"))
    [case] = config.parse(
        {"case": [{"fusion": "aff", "host": "resnet:b=1", "mode": "train", "dtype": "bfloat16", "batch": 2}]},
        config.Path("afftool.toml"),
    ).cases
    assert case.name == "aff in resnet:b=1 size=32x32 batch=2 mode=train dtype=bfloat16"


def test_formulas_for_operators_may_stand_beside_the_cases(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, '[[case]]\nfusion = "add"\n[formulas]\n"mylib::op" = "pkg.mod:function"\n')
    assert [case.spec.fusion.text for case in config.read(file).cases] == ["add"]


def test_formulas_that_would_not_be_read_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = '[[case]]\nfusion = "add"\n[formulas]\n"mylib::op" = "pkg.mod:function"\n'
    with pytest.raises(UserError, match=r"formulas of .*other\.toml count nothing"):
        config.read(write(tmp_path, text, "other.toml"))
    assert config.read(write(tmp_path, text)).cases


def test_a_file_without_cases_will_do_where_the_command_line_names_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, '[formulas]\n"mylib::op" = "pkg.mod:function"\n')
    with pytest.raises(UserError, match="names no case"):
        config.read(file)
    assert config.read(file, needs_cases=False).cases == ()
