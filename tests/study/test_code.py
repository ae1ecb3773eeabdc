"""Which source files a result may come from."""

import sys
from pathlib import Path

import pytest

from afftool.registry import module_form
from afftool.study.code import code_of, own_modules

GATE = (
    "import json\nfrom torch import nn\n{how}\n"
    "class Gate(nn.Module):\n    def forward(self, x, y):\n        return x + y\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("code_gate", "code_sibling", "code_package"):
        monkeypatch.delitem(sys.modules, name, raising=False)
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
