"""Which source files a result may come from."""

import os
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import pytest

from afftool import registry
from afftool.registry import module_form
from afftool.study.code import Origin, code_of, origin_of, own_modules
from afftool.study.opened import watched

GATE = (
    "import json\nfrom torch import nn\n{how}\n"
    "class Gate(nn.Module):\n    def forward(self, x, y):\n        return x + y\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("code_")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_a_changed_module_beside_the_users_own_changes_the_code(folder: Path) -> None:
    (folder / "code_gate.py").write_text(GATE.format(how="from code_sibling import WIDTH"))
    sibling = folder / "code_sibling.py"
    sibling.write_text("WIDTH = 8\n")
    before = code_of("code_gate:Gate")
    assert [module.name for module in own_modules(["code_gate:Gate"])] == ["code_gate", "code_sibling"]
    assert code_of("code_gate:Gate") == before
    sibling.write_text("WIDTH = 9\n")
    assert code_of("code_gate:Gate") != before


def test_every_file_of_a_package_counts_and_what_is_installed_does_not(folder: Path) -> None:
    package = folder / "code_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "gates.py").write_text(GATE.format(how="import numpy"))
    (package / "unused.py").write_text("")
    (found,) = own_modules(["code_package.gates:Gate"])
    assert (found.name, [file.name for file in found.files]) == (
        "code_package",
        ["__init__.py", "gates.py", "unused.py"],
    )
    before = code_of("code_package.gates:Gate")
    (package / "deeper").mkdir()
    (package / "unused.py").rename(package / "deeper" / "unused.py")
    assert code_of("code_package.gates:Gate") != before


def test_the_catalogs_own_have_no_code(folder: Path) -> None:
    assert code_of(None, None) == ""


def test_the_code_of_a_file_outside_of_the_current_directory_is_that_files(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (tmp_path / "above_gates.py").write_text("Gate = None\n")
    target = module_form("../above_gates.py:Gate")
    (module,) = own_modules([target])
    assert module.files == (tmp_path / "above_gates.py",)
    assert len(code_of(target)) == 16


def built(folder: Path, target: str, **sources: str) -> Origin:
    """Where a target comes from once it was built; every source is `name=text`, and its modules are imported anew."""
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    with watched([target]):
        registry.load(target)()
    return origin_of(target)


@pytest.mark.parametrize(
    "reading",
    [
        "open(HERE / 'data.txt').read()",
        "(HERE / 'data.txt').read_bytes()",
        "os.close(os.open(HERE / 'data.txt', os.O_RDONLY))",
        "np.fromfile(HERE / 'data.txt', dtype=np.uint8)",
        "np.memmap(HERE / 'data.txt', dtype=np.uint8, mode='r+')",
        "ThreadPoolExecutor().submit(lambda: open(HERE / 'data.txt').read()).result()",
        "exec(open(HERE / 'data.txt').read())",
        "read()",
    ],
)
@pytest.mark.parametrize("when", ["imported", "built"])
def test_a_data_file_that_was_opened_changes_the_code_when_its_content_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, reading: str, when: str
) -> None:
    source = f"""
        import os, shutil
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        import numpy as np, torch
        HERE = Path(__file__).parent
        def read():
            with open(HERE / 'data.txt', 'rb') as stream:
                return stream.read()
        {reading if when == "imported" else ""}
        def Gate():
            {reading if when == "built" else ""}
            open(HERE / 'kept.txt', 'w').close()
    """
    (folder / "data.txt").write_text("1")
    before = built(folder, "code_reads:Gate", code_reads=source)
    assert before.data == ("data.txt",)
    assert "kept.txt, which it writes itself" in before.unknown
    assert origin_of("code_reads:Gate") == before
    (folder / "data.txt").write_text("2")
    assert origin_of("code_reads:Gate").code != before.code


def test_a_file_that_a_shared_module_has_read_once_counts_for_everyone_who_imports_it(folder: Path) -> None:
    (folder / "data.txt").write_text("1")
    shared = "from pathlib import Path\nTEXT = Path(__file__).with_name('data.txt').read_text()\n"
    gate = "import code_shared\ndef Gate():\n    return code_shared.TEXT\n"
    first = built(folder, "code_a:Gate", code_shared=shared, code_a=gate)
    second = built(folder, "code_b:Gate", code_b=gate)
    assert first.data == second.data == ("data.txt",)


def test_an_installed_package_of_the_target_counts_with_its_data_and_others_by_their_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = folder / "site-packages" / "code_installed"
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(package.parent)
    (package / "data.txt").write_text("1")
    (package / "__init__.py").write_text(
        "import yaml\nfrom pathlib import Path\n"
        "def Gate():\n    return Path(__file__).with_name('data.txt').read_text()\n"
    )
    before = built(folder, "code_installed:Gate")
    assert (before.modules, before.data) == (("code_installed",), ("code_installed/data.txt",))
    assert before.versions == (f"PyYAML=={metadata.version('PyYAML')}",)
    assert own_modules(["code_installed:Gate"]) == []  # it is on every node of a cluster already
    (package / "data.txt").write_text("2")
    with_data = origin_of("code_installed:Gate")
    (package / "kernel.so").write_bytes(b"compiled")
    assert len({before.code, with_data.code, origin_of("code_installed:Gate").code}) == 3


def test_what_cannot_be_known_is_told(folder: Path) -> None:
    source = "import socket, subprocess\ndef Gate():\n    subprocess.run(['true'])\n"
    found = built(folder, "code_asks:Gate", code_asks=source)
    assert found.unknown == ("the programs it started",)
    assert found.told("mine") == (
        "mine: its cells are trained again when something of this changes: the code of code_asks. Taken on trust: the "
        "programs it started, environment variables, files that compiled code opens by itself."
    )
    exec("class Gate: pass", vars(sys.modules.setdefault("code_nowhere", type(os)("code_nowhere"))))
    assert origin_of("code_nowhere:Gate").unknown == ("the code of code_nowhere, which is in no file",)


def test_a_file_that_was_opened_outside_of_the_building_does_not_count(folder: Path) -> None:
    (folder / "data.txt").write_text("1")
    source = "from pathlib import Path\ndef Gate():\n    return Path(__file__).with_name('data.txt').read_text()\n"
    (folder / "code_late.py").write_text(source)
    registry.load("code_late:Gate")()
    assert origin_of("code_late:Gate").data == ()
