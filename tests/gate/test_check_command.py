"""`afftool check` as it is started: what it says where, and one exit code for each thing that can happen."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import pytest

import afftool
from afftool.cli import main
from afftool.gate import reference
from afftool.gate.check import Measured
from afftool.gate.reading import Reading
from afftool.gate.reference import Reference
from afftool.record import Environment

GATE = """\
import time

import torch
from torch import nn


class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x, y):
        return x + self.conv(y)
"""
EXTRA = (
    "        self.conv = nn.Conv2d(channels, channels, 1)\n",
    "        self.conv = nn.Conv2d(channels, channels, 1)\n        self.extra = nn.Conv2d(channels, channels, 1)\n",
)
CONFIG = '[[case]]\nfusion = "mypkg.gates:Gate"\nchannels = 8\nsize = 4\nbatch = 2\n'
CASE = "mypkg.gates:Gate channels=8 size=4x4 batch=2"
TIMES, TWICE = (1.0, 1.01, 1.02, 1.03, 1.04), (2.0, 2.01, 2.02, 2.03, 2.04)
"""Of five processes of a job, in ms."""
HERE = Environment(afftool="1", python="3.11", torch="2.13.0", cpu="this one")


def git(folder, *arguments):
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository of two equal commits with a fusion of the user's own in it."""
    folder = tmp_path / "project"
    (folder / "mypkg").mkdir(parents=True)
    (folder / "mypkg" / "__init__.py").touch()
    (folder / "mypkg" / "gates.py").write_text(GATE)
    (folder / "afftool.toml").write_text(CONFIG)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "one")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "two")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(afftool.__file__).parents[1]))  # this afftool there too, and nothing else
    return folder


def check(monkeypatch, *arguments):
    """The exit code of `afftool check` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["afftool", "check", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def measured(monkeypatch, *, environment=HERE, **fields):
    """Put readings in place of measuring them."""
    reading = Reading(values={"params": 72}, batch=2, **fields)
    put(monkeypatch, Measured({CASE: reading}, environment))


def put(monkeypatch, found):
    def measure(checking, accept):
        accept(found.environment)
        return found

    monkeypatch.setattr("afftool.gate.against_reference.measure", measure)


def stored(folder, *, environment=HERE, **fields):
    reading = Reading(values={"params": 72}, batch=2, **fields)
    reference.write(folder / "afftool-baseline.json", Reference(readings={CASE: reading}, environment=environment))


def test_a_baseline_is_written_and_broken_and_everyone_is_told(project, monkeypatch, capsys, tmp_path):
    assert check(monkeypatch, "--metric", "params,macs", "--write-baseline") == 0
    assert git(project, "status", "--porcelain") == "?? afftool-baseline.json\n"

    (project / "mypkg" / "gates.py").write_text(GATE.replace(*EXTRA))
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert check(monkeypatch, "--metric", "params,macs", "--junit", str(tmp_path / "new" / "junit.xml")) == 3
    out = capsys.readouterr().out
    assert "72 more parameters (+100.0%): extra.weight +64, extra.bias +8" in out
    assert "1 regression, 1 fine" in out
    assert "::error file=mypkg/gates.py,line=7,title=regression%3A params::" in out
    assert summary.read_text().startswith("before\n## afftool check: 1 regression, 1 fine\n")
    suite = ElementTree.parse(tmp_path / "new" / "junit.xml").getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


def test_json_is_one_document_on_stdout(project, monkeypatch, capsys):
    stored(project)
    measured(monkeypatch)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert check(monkeypatch, "--metric", "params", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["exit_code"] == 0
    assert data["verdicts"][0] | {"before": 72, "after": 72, "outcome": "fine"} == data["verdicts"][0]


TIRED = GATE.replace("    def", "    calls = 0\n\n    def", 1).replace(
    "return", "self.calls += 1\n        assert self.calls < 40, 'tired'\n        return"
)
"""Of a gate that runs, and fails while it is timed."""


def test_a_slowdown_against_a_ref_is_a_regression_and_the_tree_stays_as_it_is(project, monkeypatch, capsys):
    (project / "mypkg" / "tired.py").write_text(TIRED)
    (project / "afftool.toml").write_text(
        CONFIG.replace('"mypkg.gates:Gate"', '["mypkg.gates:Gate", "mypkg.tired:Gate"]')
    )
    git(project, "rm", "-q", "--cached", "afftool.toml")
    git(project, "add", "mypkg")
    git(project, "commit", "--quiet", "-m", "three")
    (project / "mypkg" / "gates.py").write_text(GATE.replace("return", "time.sleep(0.02)\n        return"))
    before = git(project, "status", "--porcelain=v2")
    monkeypatch.setattr("afftool.gate.contest.FIRST_PAIRS", 2)  # four take twice as long, and say it no plainer
    assert check(monkeypatch, "--against", "HEAD", "--metric", "params,time", "--budget", "3", "--json") == 3
    document = json.loads(capsys.readouterr().out)
    told = document["verdicts"]
    assert (
        "times are of 2 pairs of fresh processes; their intervals are of 95%, for all looks together"
        in document["notes"]
    )
    verdicts = {verdict["metric"]: verdict for verdict in told if verdict["case"] == CASE}
    assert verdicts["params"]["outcome"] == "fine"
    assert verdicts["latency_ms"]["outcome"] == "regression"
    assert verdicts["latency_ms"]["ratio"]["low"] > 2
    assert verdicts["latency_ms"]["pairs"] == 2
    [tired] = [each for each in told if each["case"] != CASE and each["metric"] == "latency_ms"]
    assert tired["outcome"] == "inconclusive"
    assert "tired" in tired["reason"]
    assert git(project, "status", "--porcelain=v2") == before
    assert git(project, "worktree", "list").count("\n") == 1


@pytest.mark.gpu
def test_on_a_gpu_ten_times_the_kernels_are_a_regression_and_the_same_code_is_fine(project, monkeypatch, capsys):
    (project / "afftool.toml").write_text(CONFIG.replace("size = 4", 'size = 64\ndevice = "cuda"'))
    assert check(monkeypatch, "--against", "HEAD~1", "--metric", "params,time", "--budget", "5") == 0
    more = GATE.replace("return x", "for _ in range(9):\n            self.conv(y)\n        return x")
    (project / "mypkg" / "gates.py").write_text(more)
    capsys.readouterr()
    assert check(monkeypatch, "--against", "HEAD~1", "--metric", "params,time", "--budget", "5", "--json") == 3
    verdicts = {verdict["metric"]: verdict for verdict in json.loads(capsys.readouterr().out)["verdicts"]}
    assert verdicts["params"]["outcome"] == "fine"
    assert verdicts["latency_ms"]["ratio"]["low"] > 2


def test_exit_2_is_the_user_s_input(project, monkeypatch, capsys):
    (project / "afftool.toml").write_text(CONFIG + "[rules]\nparms = 5\n")
    assert check(monkeypatch) == 2
    assert "did you mean 'params'?" in capsys.readouterr().err
    (project / "afftool.toml").unlink()
    assert check(monkeypatch) == 2
    assert "afftool check --init" in capsys.readouterr().err
    for wrong in (
        ["--against", "HEAD", "--write-baseline"],
        ["--against", "HEAD", "--calibrate"],
        ["--metric", "speed"],
        ["--on-missing-baseline", "ignore"],
        ["--budget", "0"],
        ["--no-such-option"],
        ["a.json", "--baseline", "b.json"],
        ["--channels", "8"],
    ):
        assert check(monkeypatch, *wrong) == 2, wrong


def test_exit_2_is_a_fusion_that_cannot_be_imported_and_a_ref_that_is_not_there(project, monkeypatch, capsys):
    assert check(monkeypatch, "--against", "no-such-ref") == 2
    assert "git knows no commit 'no-such-ref'" in capsys.readouterr().err
    stored(project)
    assert check(monkeypatch, "--fusion", "mypkg.gatez:Gate", "--metric", "params") == 2
    assert "mypkg.gatez" in capsys.readouterr().err


OTHER_TORCH = replace(HERE, torch="1.0.0")


@pytest.mark.parametrize("baseline", ["none", "damaged", pytest.param("of another torch", marks=pytest.mark.long)])
def test_what_is_wrong_with_the_cases_goes_before_what_is_wrong_with_the_baseline(
    project, monkeypatch, capsys, baseline
):
    if baseline == "of another torch":
        stored(project, environment=OTHER_TORCH)
    elif baseline == "damaged":
        (project / "afftool-baseline.json").write_text("{")
    assert check(monkeypatch, "--fusion", "mypkg.gatez:Gate", "--metric", "params") == 2
    assert "mypkg.gatez" in capsys.readouterr().err
    if baseline == "of another torch":
        (project / "mypkg" / "gates.py").write_text(
            GATE.replace("return", "raise ValueError('not today')\n        return")
        )
        assert check(monkeypatch, "--metric", "params") == 6
        assert "not today" in capsys.readouterr().err


@pytest.mark.long
def test_a_ref_without_the_directory_is_told_after_a_fusion_that_cannot_be_imported(project, monkeypatch, capsys):
    new = project / "new"
    new.mkdir()
    (new / "mine.py").write_text(GATE)
    monkeypatch.chdir(new)
    assert check(monkeypatch, "--against", "HEAD", "--fusion", "mine:Gate", "--metric", "params") == 5
    assert "new/ does not exist at HEAD" in capsys.readouterr().err
    (new / "mine.py").write_text(GATE.replace("import torch", "import tortch"))
    assert check(monkeypatch, "--against", "HEAD", "--fusion", "mine:Gate", "--metric", "params") == 2
    assert "tortch" in capsys.readouterr().err


@pytest.fixture
def src_layout(project, tmp_path, monkeypatch):
    """The project with its package under `src/`, and a copy of it installed, as `pip install .` leaves one."""
    (project / "src").mkdir()
    git(project, "mv", "mypkg", "src/mypkg")
    git(project, "commit", "--quiet", "-m", "src")
    installed = tmp_path / "site-packages"
    shutil.copytree(project / "src" / "mypkg", installed / "mypkg")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(installed)]))
    monkeypatch.syspath_prepend(installed)
    return project


@pytest.mark.long
def test_a_package_under_src_is_compared_commit_with_commit_though_a_copy_is_installed(src_layout, monkeypatch, capsys):
    (src_layout / "src" / "mypkg" / "gates.py").write_text(GATE.replace(*EXTRA))
    assert check(monkeypatch, "--against", "HEAD", "--metric", "params", "--json") == 3
    (verdict,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert (verdict["before"], verdict["after"], verdict["source"]) == (72, 144, "src/mypkg/gates.py:7")


def test_a_baseline_is_of_the_package_under_src_and_not_of_an_installed_copy(src_layout, monkeypatch, capsys):
    stored(src_layout, environment=replace(HERE, torch=metadata.version("torch")))
    (src_layout / "src" / "mypkg" / "gates.py").write_text(GATE.replace(*EXTRA))
    assert check(monkeypatch, "--metric", "params") == 3
    assert "72 more parameters" in capsys.readouterr().out


def test_a_module_that_is_not_found_is_told_where_one_under_src_is_looked_for(project, monkeypatch, capsys):
    assert check(monkeypatch, "--fusion", "nowhere:Gate", "--metric", "params") == 2
    assert "for a package under src/ `pip install -e .`" in capsys.readouterr().err


def test_only_regressions_are_shown_if_asked_for_and_the_exit_code_stays(project, monkeypatch, capsys, tmp_path):
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    values = {"params": 80, "macs": 5, "flops": 7}
    put(monkeypatch, Measured({CASE: Reading(values=values, unread={"peak_bytes": "no idea"})}, HERE))
    before = Reading(values=values | {"params": 72, "peak_bytes": 9})
    reference.write(project / "afftool-baseline.json", Reference(readings={CASE: before}, environment=HERE))
    wanted = ["--metric", "params,macs,flops,peak_bytes", "--only-regressions"]
    assert check(monkeypatch, *wanted) == 3
    out = capsys.readouterr().out
    assert "regression: params" in out
    assert "1 regression, 1 inconclusive, 2 fine" in out
    assert not any(word in out + summary.read_text() for word in ("macs", "flops", "no idea"))
    assert "regression: params" in summary.read_text()
    assert check(monkeypatch, *wanted, "--strict") == 3
    assert "no idea" in capsys.readouterr().out
    assert check(monkeypatch, *wanted, "--json") == 3
    assert len(json.loads(capsys.readouterr().out)["verdicts"]) == 4
    assert check(monkeypatch, "--metric", "macs", "--only-regressions") == 0
    assert capsys.readouterr().out.splitlines() == ["compared baseline afftool-baseline.json with working tree: 1 fine"]


def all_run(monkeypatch):
    """Every case runs, and is not tried for it."""
    monkeypatch.setattr("afftool.gate.check._try_cases", lambda checking: None)


def test_init_writes_a_file_once(project, monkeypatch, capsys):
    (project / "afftool.toml").unlink()
    monkeypatch.setattr(sys, "argv", ["afftool", "check", "--init"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert (project / "afftool.toml").read_text().startswith("# What `afftool check` measures")
    assert check(monkeypatch, "--init") == 2


def test_exit_1_is_a_crash_of_ours(project, monkeypatch, capsys):
    def crash(*_):
        raise RuntimeError("our fault")

    monkeypatch.setattr("afftool.cli.check.against_reference", crash)
    assert check(monkeypatch) == 1
    assert "bug of ours" in capsys.readouterr().err


def test_exit_4_is_inconclusive_and_only_with_strict(project, monkeypatch, capsys):
    stored(project, times_ms=(1.2,) * 5, jobs_ms=(1.1, 1.3))
    measured(monkeypatch, times_ms=(1.2,) * 5)
    assert check(monkeypatch, "--metric", "params,time") == 0
    out = capsys.readouterr().out
    assert "inconclusive: latency_ms" in out
    assert "more jobs in the baseline would tell" in out
    assert check(monkeypatch, "--metric", "params,time", "--strict") == 4


@pytest.mark.parametrize("content", ["", '{"schema": 1, "cas', '{"schema": 99}', "<<<<<<< HEAD\n", "[]"])
def test_exit_5_is_a_baseline_that_cannot_be_used(project, monkeypatch, capsys, content):
    (project / "afftool-baseline.json").write_text(content)
    all_run(monkeypatch)
    assert check(monkeypatch) == 5
    assert "hint: " in capsys.readouterr().err


def test_exit_5_is_a_baseline_of_another_torch(project, monkeypatch, capsys):
    all_run(monkeypatch)
    stored(project, environment=replace(HERE, torch="2.9.1"))
    measured(monkeypatch)
    assert check(monkeypatch, "--metric", "params") == 5
    assert "written with torch 2.9.1, here is torch 2.13.0" in capsys.readouterr().err


def test_on_another_machine_exact_metrics_are_judged_and_times_only_advise(project, monkeypatch, capsys):
    stored(project, environment=replace(HERE, cpu="another"), times_ms=(1.0, 1.01, 1.02, 1.03, 1.04))
    measured(monkeypatch, times_ms=(2.0, 2.01, 2.02, 2.03, 2.04))
    assert check(monkeypatch, "--metric", "params,time", "--strict") == 0
    out = capsys.readouterr().out
    assert "regression (advisory): latency_ms" in out
    assert "cpu another there, this one here" in out
    put(monkeypatch, Measured({CASE: Reading(values={"params": 80}, times_ms=(1.0,))}, HERE))
    assert check(monkeypatch, "--metric", "params,time") == 3


def test_the_peak_is_judged_on_another_machine_and_only_advises_on_another_platform(project, monkeypatch, capsys):
    grown = Reading(values={"params": 72, "peak_bytes": 2000})
    baseline_values = {"params": 72, "peak_bytes": 1000}
    put(monkeypatch, Measured({CASE: grown}, HERE))
    for field, code in (("cpu", 3), ("platform", 0)):
        there = Reference(
            readings={CASE: Reading(values=baseline_values)}, environment=replace(HERE, **{field: "other"})
        )
        reference.write(project / "afftool-baseline.json", there)
        assert check(monkeypatch, "--metric", "params,peak_bytes") == code
    assert "regression (advisory): peak_bytes" in capsys.readouterr().out


def test_exit_5_is_another_machine_if_there_are_only_times_to_judge(project, monkeypatch, capsys):
    all_run(monkeypatch)
    stored(project, environment=replace(HERE, cpu="another"), times_ms=(1.0, 1.01))
    measured(monkeypatch, times_ms=(2.0, 2.01))
    assert check(monkeypatch, "--metric", "time") == 5
    assert "--against REF" in capsys.readouterr().err


def test_three_jobs_of_this_machine_in_a_baseline_let_times_decide(project, monkeypatch, capsys):
    stored(project, times_ms=TIMES, jobs_ms=(1.01, 1.03))
    measured(monkeypatch, times_ms=TWICE)
    assert check(monkeypatch, "--metric", "time") == 3
    out = capsys.readouterr().out
    assert "regression: latency_ms" in out
    assert "times are compared with 3 jobs in the baseline" in out
    measured(monkeypatch, times_ms=(0.95, 0.96, 0.97, 0.98, 0.99))
    assert check(monkeypatch, "--metric", "time", "--strict") == 0


def test_fewer_jobs_only_advise_and_say_how_to_add_some(project, monkeypatch, capsys):
    stored(project, times_ms=TIMES, jobs_ms=(1.01,))
    measured(monkeypatch, times_ms=TWICE)
    assert check(monkeypatch, "--metric", "params,time", "--strict") == 0
    out = capsys.readouterr().out
    assert "regression (advisory): latency_ms" in out
    assert "the baseline holds 2 jobs of this code" in out
    assert "note: times only advise" in out
    assert "--calibrate --write-baseline" in out


def test_exit_5_is_too_few_jobs_if_there_are_only_times_to_judge(project, monkeypatch, capsys):
    all_run(monkeypatch)
    stored(project, times_ms=TIMES)
    measured(monkeypatch, times_ms=TWICE)
    assert check(monkeypatch, "--metric", "time") == 5
    told = capsys.readouterr().err
    assert "the baseline holds 1 job of this code" in told
    assert "--against REF" in told


def test_a_limit_of_a_time_needs_no_further_job_and_decides(project, monkeypatch, capsys):
    (project / "afftool.toml").write_text(CONFIG + "[rules]\nlatency_ms = { max = 1.5 }\n")
    stored(project, times_ms=TIMES)
    measured(monkeypatch, times_ms=TWICE)
    assert check(monkeypatch, "--metric", "time") == 3
    assert "above the limit of 1.5" in capsys.readouterr().out
    measured(monkeypatch, times_ms=TIMES)
    assert check(monkeypatch, "--metric", "time") == 0


def test_a_missing_baseline_fails_is_skipped_or_is_created(project, monkeypatch, capsys):
    all_run(monkeypatch)
    measured(monkeypatch)
    assert check(monkeypatch, "--metric", "params") == 5
    assert "there is no baseline" in capsys.readouterr().err
    assert check(monkeypatch, "--metric", "params", "--on-missing-baseline", "skip") == 0
    assert not (project / "afftool-baseline.json").exists()
    assert check(monkeypatch, "--metric", "params", "--on-missing-baseline", "create") == 0
    assert check(monkeypatch, "--metric", "params") == 0


def test_a_case_that_the_baseline_lacks_fails_is_skipped_or_is_added(project, monkeypatch, capsys):
    other = {CASE: Reading(values={"params": 1}), "gone": Reading(values={"params": 1})}
    file = project / "afftool-baseline.json"
    reference.write(file, Reference(readings={"gone": other["gone"]}, environment=HERE))
    measured(monkeypatch)
    assert check(monkeypatch, "--metric", "params") == 5
    assert "no longer checked: gone" in capsys.readouterr().out
    assert check(monkeypatch, "--metric", "params", "--on-missing-baseline", "skip") == 0
    assert check(monkeypatch, "--metric", "params", "--on-missing-baseline", "create") == 0
    assert sorted(reference.read(file).readings) == ["gone", CASE]


def test_a_limit_is_held_even_where_there_is_no_baseline(project, monkeypatch, capsys):
    (project / "afftool.toml").write_text(CONFIG + "[rules]\nparams = { max = 70 }\n")
    measured(monkeypatch)
    assert check(monkeypatch, "--metric", "params", "--on-missing-baseline", "skip") == 3
    assert "72 parameters, above the limit of 70" in capsys.readouterr().out


def test_exit_6_is_that_nothing_could_be_measured(project, monkeypatch, capsys):
    (project / "mypkg" / "gates.py").write_text(GATE.replace("return", "raise ValueError('not today')\n        return"))
    stored(project)
    assert check(monkeypatch, "--metric", "params,peak_bytes") == 6
    assert "not today" in capsys.readouterr().err


@pytest.mark.long
def test_a_fusion_that_the_ref_does_not_know_is_named_and_fails_if_asked_to(project, monkeypatch, capsys):
    (project / "mypkg" / "more.py").write_text(GATE)
    two = '["mypkg.gates:Gate", "mypkg.more:Gate"]'
    (project / "afftool.toml").write_text(CONFIG.replace('"mypkg.gates:Gate"', two))
    assert check(monkeypatch, "--against", "HEAD", "--metric", "params", "--on-missing-baseline", "fail") == 5
    out = capsys.readouterr().out
    assert "no baseline: case of mypkg.more:Gate" in out
    assert "at HEAD it does not run: no module named 'mypkg.more'" in out
    assert "1 no baseline, 1 fine" in out


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_exit_130_is_an_interruption_and_the_worktree_goes_away(project, tmp_path, number):
    marker = tmp_path / "importing"
    slow = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nimport time\ntime.sleep(60)\n"
    (project / "mypkg" / "gates.py").write_text(slow + GATE)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    running = subprocess.Popen(
        [sys.executable, "-m", "afftool", "check", "--against", "HEAD", "--metric", "params"],
        cwd=project,
        # torch's own cache is no leftover of a check, and is made or not as far as the sides have come
        env=os.environ | {"TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "torchs")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not marker.exists() and running.poll() is None:
        time.sleep(0.05)
    assert len(list(temporary.glob("afftool-*"))) == 1
    running.send_signal(number)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    assert "interrupted" in told
    assert list(temporary.iterdir()) == []
    assert git(project, "worktree", "list").count("\n") == 1


def never_measured(monkeypatch):
    def fail(*_):
        raise AssertionError("it was measured all the same")

    monkeypatch.setattr("afftool.gate.check._read_exact_here", fail)


def test_a_baseline_of_another_torch_is_refused_before_anything_is_measured(project, monkeypatch, capsys):
    all_run(monkeypatch)
    stored(project, environment=replace(HERE, torch="1.0.0"))
    never_measured(monkeypatch)
    assert check(monkeypatch, "--metric", "params") == 5
    assert "written with torch 1.0.0" in capsys.readouterr().err


def test_exit_5_is_a_baseline_without_times_if_there_are_only_times_to_judge(project, monkeypatch, capsys):
    all_run(monkeypatch)
    stored(project)
    never_measured(monkeypatch)
    assert check(monkeypatch, "--metric", "time") == 5
    assert "holds no times" in capsys.readouterr().err


def test_a_rule_on_time_that_the_baseline_cannot_answer_is_named(project, monkeypatch, capsys):
    (project / "afftool.toml").write_text(CONFIG + '[rules]\nlatency_ms = "3%"\nthroughput_per_s = "3%"\n')
    stored(project)
    measured(monkeypatch)
    assert check(monkeypatch, "--metric", "params,time") == 0
    assert "note: the baseline holds no times: 2 time rules not judged" in capsys.readouterr().out
    assert check(monkeypatch, "--metric", "params") == 0
    assert "holds no times" not in capsys.readouterr().out


def test_exit_6_is_a_judgement_without_a_verdict(project, monkeypatch, capsys):
    (project / "afftool.toml").write_text(CONFIG + '[rules]\nparams = "off"\n')
    stored(project)
    measured(monkeypatch)
    assert check(monkeypatch, "--metric", "params") == 6
    assert "switch off every metric" in capsys.readouterr().err


def test_a_throughput_rule_is_judged_among_times(project, monkeypatch, capsys):
    (project / "afftool.toml").write_text(CONFIG + '[rules]\nlatency_ms = "off"\nthroughput_per_s = "5%"\n')
    stored(project, times_ms=TIMES, jobs_ms=(1.01, 1.03))
    measured(monkeypatch, times_ms=TWICE)
    assert check(monkeypatch, "--metric", "time") == 3
    assert "regression: throughput_per_s" in capsys.readouterr().out


def test_instruction_counts_only_advise_under_another_python(project, monkeypatch, capsys):
    def reading(count):
        return Reading(values={"params": 72, "instructions": count}, batch=2)

    put(monkeypatch, Measured({CASE: reading(200)}, HERE))
    for environment, code in ((HERE, 3), (replace(HERE, python="3.13"), 0), (replace(HERE, platform="other"), 0)):
        there = Reference(readings={CASE: reading(100)}, environment=environment)
        reference.write(project / "afftool-baseline.json", there)
        assert check(monkeypatch, "--metric", "params,instructions") == code
    assert "regression (advisory): instructions" in capsys.readouterr().out


def refused(wanted):
    """A check that ends with this exit code, as (arguments, what the errors say)."""
    return {
        2: (["--against", "no-such-ref"], "git knows no commit"),
        5: (["--baseline", "none.json"], "there is no baseline"),
        6: ([], "switch off every metric"),
    }[wanted]


@pytest.mark.parametrize("code", [2, 5, 6])
def test_an_error_is_told_wherever_a_judgement_would_be(project, monkeypatch, capsys, tmp_path, code):
    arguments, words = refused(code)
    (project / "afftool.toml").write_text(CONFIG + '[rules]\nparams = "off"\n')
    all_run(monkeypatch)
    stored(project)
    measured(monkeypatch)
    summary, junit = tmp_path / "summary.md", tmp_path / "new" / "junit.xml"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert check(monkeypatch, "--metric", "params", "--json", "--junit", str(junit), *arguments) == code
    told = capsys.readouterr()
    data = json.loads(told.out)
    assert (data["exit_code"], data["verdicts"]) == (code, [])
    assert words in data["error"]["message"]
    assert "::error title=afftool check::" in told.err
    assert summary.read_text().startswith("## afftool check: could not be carried out\n")
    [error] = ElementTree.parse(junit).getroot().iter("error")
    assert words in error.get("message")


def test_a_junit_file_that_cannot_be_written_is_refused_before_anything_is_measured(project, monkeypatch, capsys):
    stored(project)
    never_measured(monkeypatch)
    assert check(monkeypatch, "--metric", "params", "--junit", "afftool.toml/junit.xml") == 2
    assert "name another file by --junit" in capsys.readouterr().err
