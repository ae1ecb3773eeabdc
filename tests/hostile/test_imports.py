"""Folders whose files have the names of Python's modules, of installed packages, or of none that is there: none runs.

What the user names in such a folder does run, and finds its neighbours, at any time.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_runs import bench_run, keep

from afftool import imports, registry
from afftool.errors import LoadError
from afftool.registry import Installed, load, module_form

NAMES = """
    json hashlib sqlite3 tomllib csv html queue select socket subprocess multiprocessing threading
    inspect secrets tempfile shutil statistics pickle tarfile zlib logging random platform ast
    torch numpy pandas rich typer msgspec scipy click triton pynvml ray tensorboard PIL pyarrow
    sklearn sympy torchmetrics torch_tb_profiler fvcore datasets numexpr bottleneck afftool
    sitecustomize usercustomize
"""
GATE = """
import json, hashlib, tomllib, numpy, pandas, torch
from beside import WIDTH

class Gate(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, WIDTH, 1)

    def forward(self, x, y):
        from only_when_called import scaled
        return scaled(self.conv(x) + y)
"""


def fill(folder: Path, marker: Path, *names: str) -> None:
    """Files and packages of these names, each of which writes its name to `marker` when it runs."""
    for name in names:
        text = f"import os\nwith open({str(marker)!r}, 'a') as told:\n    told.write(__name__ + ' ')\n"
        (folder / f"{name}.py").write_text(text)
        if name in ("afftool", "torch", "json", "rich"):
            (folder / f"{name}.py").unlink()
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(text)


def own(folder: Path, width: int = 4) -> None:
    (folder / "gates.py").write_text(GATE)
    (folder / "beside.py").write_text(f"WIDTH = {width}\n")
    (folder / "only_when_called.py").write_text("def scaled(x):\n    return 2 * x\n")


@pytest.fixture
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marker") / "ran"


@pytest.fixture
def hostile(place: Any, marker: Path) -> Any:
    fill(place.folder, marker, *NAMES.split())
    return place


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to be in; what is imported from it is forgotten."""
    folder = tmp_path / "received"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--json"],
        ["runs", "--json"],
        ["report", "1", "--format", "md"],
        ["report", "1", "--json"],
        ["compare"],
        ["describe", "iaff"],
    ],
    ids=" ".join,
)
def test_reading_in_a_folder_runs_none_of_its_files_and_changes_nothing(
    hostile: Any, marker: Path, words: list[str]
) -> None:
    keep(hostile.folder / ".afftool" / "runs.sqlite", bench_run(), bench_run())
    before = hostile.content()
    done = hostile.run(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not marker.exists(), marker.read_text()
    after = {name: state for name, state in hostile.content().items() if not name.startswith(".afftool")}
    assert after == {name: state for name, state in before.items() if not name.startswith(".afftool")}


def test_the_gate_s_first_file_is_written_without_running_any_other(hostile: Any, marker: Path) -> None:
    assert hostile.run("check", "--init").returncode == 0
    assert (hostile.folder / "afftool.toml").is_file()
    assert not marker.exists(), marker.read_text()


MEASURING = """
import os
from typer.testing import CliRunner
from afftool.cli import app
if __name__ == "__main__":
    for words in (
        "doctor",
        "bench -f add -c 4 -s 4 -b 1 -m cost",
        "inspect add -c 4 -s 4",
        "profile add -c 4 -s 4 -b 1 --steps 1",
        "ablate gain --data shapes:train=32:test=32:size=16 --host resnet:b=1 --seeds 1 --epochs 1 --workers 1",
        "bench -f gates:Gate -c 4 -s 4 -b 1 -m cost --json",
    ):
        if "gates" in words:
            os.remove("afftool.toml")  # whose formulas are for it
        result = CliRunner().invoke(app, words.split(), catch_exceptions=False)
        assert result.exit_code == 0, (words, result.output)
    print(result.output)
"""


@pytest.mark.long
def test_measuring_runs_none_of_the_folder_s_files_but_the_module_that_is_named_and_its_neighbours(
    hostile: Any, marker: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As the installed command, which is a script in another folder; a study's workers are `python -c`."""
    own(hostile.folder)
    (hostile.folder / "afftool.toml").write_text('[formulas]\n"aten::polar" = "formulas:polar"\n')
    fill(hostile.folder, marker, "formulas")
    script = tmp_path_factory.mktemp("installed") / "afftool-script"
    script.write_text(MEASURING)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=hostile.folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"params": 20' in done.stdout
    assert not marker.exists(), marker.read_text()


@pytest.mark.long
def test_a_check_runs_each_commit_s_own_modules_and_nothing_else_of_its_folder(hostile: Any, marker: Path) -> None:
    """The neighbour lies where PYTHONPATH leads: in the worktree's copy of that place for the commit."""
    own(hostile.folder)
    libraries = hostile.folder / "libs"
    libraries.mkdir()
    (hostile.folder / "beside.py").rename(libraries / "beside.py")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", "-C", str(hostile.folder)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    (libraries / "beside.py").write_text("WIDTH = 1  # and broadcast\n")
    words = "check --against HEAD -f gates:Gate -c 4 -s 4 -b 1 --metric params --json"
    path = os.pathsep.join(filter(None, [str(libraries), os.environ.get("PYTHONPATH")]))
    done = hostile.run(*words.split(), PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    (verdict,) = json.loads(done.stdout)["verdicts"]
    assert (verdict["before"], verdict["after"]) == (20, 5)
    assert not marker.exists(), marker.read_text()


def test_the_module_form_of_the_command_takes_nothing_from_the_folder_either(place: Any, marker: Path) -> None:
    fill(place.folder, marker, *(name for name in NAMES.split() if name != "afftool"))
    keep(place.folder / ".afftool" / "runs.sqlite", bench_run(), bench_run())
    done = subprocess.run(
        [sys.executable, "-m", "afftool", "runs"], cwd=place.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not marker.exists(), marker.read_text()


def test_the_path_stays_as_it_was_whatever_was_loaded(here: Path) -> None:
    own(here)
    path = list(sys.path)
    load("gates:Gate")
    assert sys.path == path


def test_what_is_not_installed_is_not_found_in_the_folder_once_a_module_of_it_was_loaded(
    here: Path, marker: Path
) -> None:
    own(here)
    fill(here, marker, "not_installed_anywhere", "numexpr")
    load("gates:Gate")
    with pytest.raises(LoadError, match="this needs not_installed_anywhere"):
        registry.need("not_installed_anywhere", "gpu")
    assert importlib.util.find_spec("not_installed_anywhere") is None
    assert not marker.exists()


def test_what_a_library_imports_for_itself_is_not_found_in_the_folder(
    here: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "library_of_hostile.py").write_text(
        "import importlib\n"
        "def for_itself():\n    import optional_of_hostile\n"
        "def for_caller(name):\n    return importlib.import_module(name)\n"
    )
    monkeypatch.syspath_prepend(installed)
    fill(here, marker, "optional_of_hostile")
    (here / "asks.py").write_text(
        "import library_of_hostile\nfor_itself = library_of_hostile.for_itself\n"
        "def for_caller():\n    return library_of_hostile.for_caller('beside_asks').VALUE\n"
    )
    (here / "beside_asks.py").write_text("VALUE = 3\n")
    with pytest.raises(ModuleNotFoundError):
        load("asks:for_itself")()
    assert not marker.exists()
    assert load("asks:for_caller")() == 3


def test_a_neighbour_that_is_imported_when_it_is_called_is_found_whoever_calls(here: Path) -> None:
    own(here)
    gate = load("gates:Gate")(4)
    x = torch.ones(1, 4, 2, 2)
    compiled = torch.compile(gate, backend="eager", fullgraph=True)  # it traces before anything was called
    assert torch.equal(compiled(x, x), gate(x, x))
    os.chdir(here.parent)
    (here / "late.py").write_text("VALUE = 5\n")
    assert eval("__import__('late')", vars(sys.modules["gates"])).VALUE == 5


def test_a_module_of_another_folder_finds_no_neighbours_in_the_current_one(here: Path) -> None:
    elsewhere = here.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lone.py").write_text("import beside_hostile_only\nGate = None\n")
    (here / "beside_hostile_only.py").write_text("raise SystemExit('foreign code')\n")
    with pytest.raises(LoadError, match="No module named 'beside_hostile_only'"):
        load(module_form("../elsewhere/lone.py:Gate"))


def test_a_module_that_a_user_names_goes_before_an_installed_one_and_what_a_package_named_does_not(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "site-packages"
    for folder, where in ((installed, "installed"), (here, "here")):
        folder.mkdir(exist_ok=True)
        for name in ("stale_of_hostile", "pointed_of_hostile"):
            (folder / f"{name}.py").write_text(f"where = {where!r}\n")
    monkeypatch.syspath_prepend(installed)
    assert load("stale_of_hostile:where") == "here"
    assert load(Installed("pointed_of_hostile:where")) == "installed"


def test_no_name_that_afftool_is_built_on_is_taken_from_the_folder_however_it_is_asked_for(
    here: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(here, marker, "networkx", "torchmetrics", "colorsys")
    for name in ("networkx", "torchmetrics", "colorsys"):
        for module in [known for known in sys.modules if known.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        assert imports.place_of(name) not in (here / f"{name}.py", None)
    (here / "asks_colours.py").write_text("import colorsys\nfile = colorsys.__file__\n")
    assert not load("asks_colours:file").startswith(str(here))
    assert not marker.exists()


def test_a_folder_that_is_no_package_does_not_hide_an_installed_one(here: Path) -> None:
    (here / "torchvision_of_hostile").mkdir()
    (here / "yaml").mkdir()
    (here / "reads_yaml.py").write_text("import yaml\nfile = yaml.__file__\n")
    assert "site-packages" in load("reads_yaml:file")


def test_names_that_differ_in_case_alone_are_two(here: Path, marker: Path) -> None:
    fill(here, marker, "Json", "TORCH")
    (here / "cased.py").write_text("import json, torch\nfiles = json.__file__ + torch.__file__\n")
    assert str(here) not in load("cased:files")
    assert not marker.exists()
    load("Json:os")
    assert marker.read_text() == "Json "
    assert sys.modules["json"].__file__ != sys.modules["Json"].__file__


@pytest.mark.parametrize("named", ["{}/gates.py:Gate", "{}/gates:Gate"])
def test_a_module_whose_neighbour_another_folder_s_code_has_imported_is_refused_and_not_given_that(
    here: Path, named: str
) -> None:
    for width, folder in enumerate(("one", "two"), start=3):
        (here / folder).mkdir()
        (here / folder / "gates.py").write_text("from twin_of_hostile import WIDTH as Gate\n")
        (here / folder / "twin_of_hostile.py").write_text(f"WIDTH = {width}\n")
    (here / "two" / "lone.py").write_text("VALUE = 7\n")
    assert load(module_form(named.format("one"))) == 3
    with pytest.raises(LoadError, match=r"two/gates cannot be imported beside .*one/twin_of_hostile.py: its own") as no:
        load(module_form(named.format("two")))
    assert "one after the other" in str(no.value.hint)
    assert load(module_form(named.format("one"))) == 3
    del sys.modules["twin_of_hostile"]
    assert load(module_form(named.format("two"))) == 4


def test_a_named_module_that_another_folder_s_code_has_imported_as_its_neighbour_is_refused(here: Path) -> None:
    (here.parent / "other").mkdir()
    (here.parent / "other" / "top_of_hostile.py").write_text("from same_of_hostile import VALUE\n")
    for folder, value in ((here, 1), (here.parent / "other", 2)):
        (folder / "same_of_hostile.py").write_text(f"VALUE = {value}\n")
    assert load(module_form("../other/top_of_hostile.py:VALUE")) == 2
    with pytest.raises(LoadError, match="cannot be imported beside"):
        load("same_of_hostile:VALUE")


USES_ITS_DATASETS = """
from afftool import registry
from afftool.errors import LoadError

assert registry.load("net:CLASSES") == 7
try:
    registry.need("datasets", "hub")
except LoadError as refused:
    print(refused)
"""


def test_a_folder_of_one_s_own_may_have_the_name_of_what_only_some_features_need(place: Any) -> None:
    (place.folder / "datasets").mkdir()
    (place.folder / "datasets" / "__init__.py").write_text("CLASSES = 7\n")
    (place.folder / "net.py").write_text("from datasets import CLASSES\n")
    command = [sys.executable, "-P", "-c", USES_ITS_DATASETS]
    done = subprocess.run(command, cwd=place.folder, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        f"this needs the installed datasets, and your own {place.folder}/datasets is imported"
    )
    assert "hint: rename datasets" in done.stdout
