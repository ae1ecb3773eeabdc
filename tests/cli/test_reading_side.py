"""The commands that only read: fast, without torch, and with the exit codes of the design."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_runs import bench_run, keep, record

from afftool import catalog
from afftool.store import Store

FRAMES = {"numpy", "pandas"}
READING = ("report", "compare", "runs")
"""Commands that may load pandas and numpy for their tables of many rows, once there are rows; nothing else may."""

REPORTING = """
import sys
sys.argv = ["afftool", *sys.argv[1:]]
from afftool.cli import main
code = 0
try:
    main()
except SystemExit as stop:
    code = stop.code
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "pandas", "numpy", "rich"})
sys.stderr.write("\\nimported:" + ",".join(heavy) + "\\n")
sys.exit(code)
"""


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AFFTOOL")}
    command = [sys.executable, "-c", REPORTING, *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def imported(done: subprocess.CompletedProcess[str]) -> list[str]:
    line = next(line for line in done.stderr.splitlines() if line.startswith("imported:"))
    return [name for name in line.partition(":")[2].split(",") if name]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    keep(tmp_path / ".afftool" / "runs.sqlite", bench_run(), bench_run())
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["--help"], 0, "bench", ""),
        (["--version"], 0, "afftool ", ""),
        (["list"], 0, "iaff", ""),
        (["list", "fusions", "--json"], 0, "iaff", ""),
        (["list", "fusion"], 2, "", "did you mean 'fusions'?"),
        (["lsit"], 2, "", "did you mean 'list'?"),
        (["bench"], 2, "", "--fusion"),
        (["bench", "--fusion", "iaf"], 2, "", "did you mean 'iaff'?"),
        (["bench", "--fusion", "aff:reductoin=4"], 2, "", "did you mean 'reduction'?"),
        (["bench", "--fusion", "aff", "--host", "resnt50"], 2, "", "did you mean"),
        (["bench", "--fusion", "aff", "--backend", "compiled"], 2, "", "did you mean 'compile'?"),
        (["bench", "--fusion", "aff", "--measure", "time"], 2, "", "known: cost, energy, latency, memory"),
        (["bench", "--fusion", "aff", "--device", "gpu"], 2, "", "auto, cpu, cuda"),
        (["bench", "--fusion", "aff", "--budget", "0"], 2, "", "--budget"),
        (["bench", "--fusion", "aff", "--format", "markdwon"], 2, "", "known: csv, html, json, md"),
        (["bench", "--fusion", "aff", "--out", "r.xyz"], 2, "", "no format writes .xyz"),
        (["bench", "--fusion", "aff:reduction=128"], 2, "", "64 channels cannot be reduced by 128"),
        (["bench", "--fusion", "aff", "--no-such-option"], 2, "", "No such option"),
        (["describe", "iaff"], 0, "8 C m + 12 C + 12 m", ""),
        (["describe", "iaf"], 2, "", "did you mean 'iaff'?"),
        (["runs"], 0, "afftool bench --fusion aff,iaff", ""),
        (["report"], 0, "# afftool bench: aff, iaff against add", ""),
        (["report", "1", "--format", "csv"], 0, "fusion,host", ""),
        (["report", "-2", "--json"], 0, '"schema"', ""),
        (["report", "3"], 2, "", "there is no run 3"),
        (["report", "--store", "nowhere.sqlite"], 2, "", "no run store"),
        (["compare"], 0, "# afftool compare: run 2 against run 1", ""),
        (["compare", "-1", "1", "--format", "html"], 0, "<!doctype html>", ""),
        (["compare", "1"], 2, "", "needs two runs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_it_answers_without_torch_and_with_the_exit_code_of_the_design(
    words: list[str], code: int, out: str, err: str, stored: Path
) -> None:
    done = run(*words, folder=stored)
    assert done.returncode == code, done.stderr
    assert out in done.stdout
    assert err in done.stderr
    assert set(imported(done)) <= (FRAMES if words[0] in READING and not code else set())
    if code:
        assert done.stdout == ""
        assert "Traceback" not in done.stderr


def test_help_names_every_command(tmp_path: Path) -> None:
    told = run("--help", folder=tmp_path).stdout
    assert all(name in told for name in catalog.COMMANDS)


@pytest.mark.parametrize("command", ["bench", "list", "describe", "doctor", "runs", "report", "compare"])
def test_each_command_has_help_of_its_own(command: str, tmp_path: Path) -> None:
    done = run(command, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage: afftool" in done.stdout
    assert imported(done) == []


def test_list_as_json_holds_every_name_of_the_catalog(tmp_path: Path) -> None:
    document = json.loads(run("list", "--json", folder=tmp_path).stdout)
    assert {entry["name"] for entry in document["fusions"]} >= set(catalog.FUSIONS)
    assert {entry["name"] for entry in document["hosts"]} == set(catalog.HOSTS)
    assert all(entry["summary"] for entries in document.values() for entry in entries)


def test_a_report_is_written_to_files_and_the_paths_are_told(stored: Path) -> None:
    done = run("report", "--out", "reports", folder=stored)
    assert done.returncode == 0
    assert done.stdout == ""
    assert sorted(path.name for path in (stored / "reports").iterdir()) == ["report.csv", "report.md"]


def test_the_store_is_named_by_an_option_or_the_environment(stored: Path, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    store = str(stored / ".afftool" / "runs.sqlite")
    environment = {**os.environ, "AFFTOOL_STORE": store}
    command = [sys.executable, "-m", "afftool", "runs", "--json"]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True)
    assert [row["run"] for row in json.loads(done.stdout)] == [1, 2]
    assert run("runs", "--store", store, folder=elsewhere).returncode == 0


def test_runs_of_another_store_are_compared_by_file_and_number(stored: Path) -> None:
    with Store.open(stored / "other.sqlite") as other:
        run_id = other.begin("afftool bench --fusion sk", bench_run().environment, "add")
        other.append(run_id, record("aff", latency_ms=1.0))
    done = run("compare", "other.sqlite:1", "2", folder=stored)
    assert done.returncode == 0, done.stderr
    assert "1 cases that every run measured" in done.stdout


def test_stores_are_merged(stored: Path) -> None:
    done = run("runs", "merge", ".afftool/runs.sqlite", "--store", "all.sqlite", folder=stored)
    assert done.returncode == 0, done.stderr
    assert "2 runs added" in done.stdout
    with Store.open(stored / "all.sqlite", create=False) as merged:
        assert len(merged.runs()) == 2


def test_a_crash_is_called_a_bug_of_ours_with_its_traceback(tmp_path: Path) -> None:
    program = "from afftool import catalog\ncatalog.COMMANDS['list'] = catalog.Loadable('math:sqrt_of_nothing.x', '')\n"
    program += "import afftool.cli.list as module\nmodule.kinds = lambda: 1 / 0\n"
    program += "catalog.COMMANDS['list'] = catalog.Loadable('afftool.cli.list:list_names', '')\n"
    program += "import sys; sys.argv = ['afftool', 'list']\nfrom afftool.cli import main\nmain()\n"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" in done.stderr
    assert "bug of ours" in done.stderr
