"""`afftool bench` for real, on fusions small enough to take no time."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from afftool.cli import main
from afftool.store import Store

COST = ["bench", "--measure", "cost", "--size", "7"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFFTOOL_STORE", raising=False)


def afftool(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["afftool", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def started(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "afftool", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def latest() -> list[dict]:
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        return [record.to_dict() for record in store.run("latest").records]


def test_one_fusion_is_measured_beside_the_baseline_stored_and_written(monkeypatch, capsys) -> None:
    assert afftool(monkeypatch, *COST, "--fusion", "aff", "--out", "out") == 0
    rows = latest()
    assert [(row["fusion"], row["params"]) for row in rows] == [("add", 0), ("aff", 4576)]
    captured = capsys.readouterr()
    assert "4,576" in captured.out
    assert "saved as run 1" in captured.err
    assert "the baseline is add" in Path("out/bench.md").read_text(encoding="utf-8")
    assert "aff,module," in Path("out/bench.csv").read_text(encoding="utf-8")


def test_json_is_all_there_is_on_stdout(monkeypatch, capsys) -> None:
    assert afftool(monkeypatch, *COST, "--fusion", "aff", "--baseline", "none", "--json") == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert set(document) == {"schema", "environment", "records"}
    assert [row["params"] for row in document["records"]] == [4576]
    assert document["records"][0]["latency_ms"] is None
    assert "measuring with host module, channels 64, size 7x7" in captured.err
    assert "\naff: 4,576 params" in captured.err


def test_a_timed_bench_has_ratios_and_compares_with_eager(monkeypatch, capsys) -> None:
    words = ["--fusion", "aff", "--channels", "8", "--size", "6", "--batch", "2", "--budget", "0.4", "--threads", "1"]
    words += ["--allocator", "kept"]
    assert afftool(monkeypatch, "bench", *words, "--backend", "eager", "--mode", "train") == 0
    add, aff = latest()
    assert (add["fusion"], aff["fusion"]) == ("add", "aff")
    assert aff["latency_ms"] > 0
    assert aff["samples"] == len(aff["samples_ms"]) > 0
    assert aff["saved_bytes"] > 0
    assert "latency vs add" in capsys.readouterr().out


def test_on_a_calibrated_machine_a_latency_has_its_bound_and_another_number_of_threads_is_told(
    monkeypatch, capsys
) -> None:
    import torch

    from afftool import environment
    from afftool.measure.ceilings.roofline import Ceilings, CeilingsFile

    torch.set_num_threads(1)
    rates = {"float32": 1e9, "bfloat16": 1e9, "float16": 1e9}
    ceilings = Ceilings(device="cpu", bandwidths=((1, 1e9),), flops_per_s=rates, launch_s=1e-6)
    CeilingsFile.beside(Path(".afftool/runs.sqlite")).keep(environment.read("cpu").fingerprint, ceilings)
    words = ["bench", "-m", "latency", "--fusion", "aff", "--channels", "8", "--size", "6", "--budget", "0.1"]
    words += ["--backend", "eager", "--device", "cpu", "--allocator", "kept"]
    assert afftool(monkeypatch, *words, "--threads", "1") == 0
    captured = capsys.readouterr()
    assert "bound by" in captured.out
    assert "MACs" not in captured.out
    assert "calibrated" not in captured.err
    assert all(row["bound"] and row["flops"] is None for row in latest())
    assert afftool(monkeypatch, *words, "--threads", "2") == 0
    told = capsys.readouterr().err
    assert "calibrated with 1 thread, and this bench uses 2" in told
    assert "`afftool doctor --calibrate --threads 2 --device cpu`" in told


def test_what_cannot_run_here_is_recorded_and_nothing_measured_has_an_exit_code(monkeypatch, capsys) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("here it can")
    words = ["bench", "--fusion", "aff", "--size", "7", "--backend", "cudagraph", "--device", "cpu"]
    assert afftool(monkeypatch, *words) == 6
    assert {row["status"] for row in latest()} == {"skipped"}
    assert all(row["reason"] for row in latest())
    captured = capsys.readouterr()
    assert "Not measured" in captured.out
    assert "nothing could be measured" in captured.err


def test_energy_alone_where_nothing_counts_it_says_why_and_nothing_was_measured(monkeypatch, capsys) -> None:
    words = ["bench", "--measure", "energy", "--fusion", "aff", "--channels", "4", "--size", "4", "--device", "cpu"]
    assert afftool(monkeypatch, *words, "--backend", "eager") == 6
    assert {row["status"] for row in latest()} == {"skipped"}
    assert "nothing counts energy on the CPU" in capsys.readouterr().out


@pytest.mark.gpu
def test_on_a_gpu_every_measure_of_a_row_is_there_eager_and_captured(monkeypatch, capsys) -> None:
    words = ["-f", "aff", "-c", "32", "-s", "32", "--device", "cuda", "--backend", "eager,cudagraph", "--mode", "train"]
    assert afftool(monkeypatch, "bench", *words, "-m", "cost,latency,memory,energy", "--budget", "4", "--strict") == 0
    for row in latest():
        assert row["status"] == "ok"
        assert row["device"] == "cuda:0"
        assert min(row["forward_ms"], row["backward_ms"], row["latency_ratio"], row["peak_bytes"]) > 0
        assert row["energy_j"] or "no energy" in row["reason"]


def test_operators_without_a_formula_are_named_on_the_screen(monkeypatch, capsys) -> None:
    source = """
        import torch
        from torch import nn

        class Inverse(nn.Module):
            def forward(self, x, y):
                return x + torch.linalg.inv(y)
    """
    Path("own_inverse.py").write_text(textwrap.dedent(source), encoding="utf-8")
    assert afftool(monkeypatch, *COST, "--fusion", "own_inverse:Inverse") == 0
    assert "Not in the FLOPs and MACs, for want of a formula: aten.linalg_inv_ex" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_the_users_error(monkeypatch, capsys) -> None:
    assert afftool(monkeypatch, *COST, "--fusion", "aff", "--device", "cuda:99") == 2
    assert "hint:" in capsys.readouterr().err


def test_a_clock_that_cannot_be_locked_is_refused_before_anything_is_measured_or_stored(monkeypatch, capsys) -> None:
    assert afftool(monkeypatch, *COST, "--fusion", "aff", "--device", "cpu", "--lock-clocks", "base") == 2
    assert "cpu is no GPU" in capsys.readouterr().err
    assert afftool(monkeypatch, *COST, "--fusion", "aff", "--lock-clocks", "fast") == 2
    assert "--lock-clocks 1410" in capsys.readouterr().err
    assert not Path(".afftool/runs.sqlite").exists()


def test_a_run_says_which_clock_was_locked_and_only_while_it_measured(monkeypatch, capsys) -> None:
    from afftool.bench import session

    holds: list[str] = []

    @contextlib.contextmanager
    def held(device: str, word: str | None):
        holds.append(f"{word} on {device}")
        yield word
        holds.append("free")

    saved = session.save_as_measured
    monkeypatch.setattr("afftool.cli.bench.locked_clock", held)
    monkeypatch.setattr(session, "save_as_measured", lambda *a, **k: holds.append("measured") or saved(*a, **k))
    assert afftool(monkeypatch, *COST, "--fusion", "aff", "--device", "cpu", "--lock-clocks", "base") == 0
    assert holds == ["base on cpu", "measured", "free"]
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        assert store.run("latest").environment.gpu_locked_clock == "base"


def test_skipped_combinations_are_stored_with_the_rest(monkeypatch) -> None:
    assert afftool(monkeypatch, *COST, "--fusion", "aff,aff:reduction=32", "--channels", "16,32") == 0
    skipped = [row for row in latest() if row["status"] == "skipped"]
    assert [(row["fusion"], row["channels"]) for row in skipped] == [("aff:reduction=32", 16)]


def test_a_module_of_the_users_own_is_found_from_the_current_folder(monkeypatch) -> None:
    source = """
        from torch import nn

        class Gate(nn.Module):
            def __init__(self, channels, width=4):
                super().__init__()
                self.weigh = nn.Conv2d(channels, width, 1)
                self.back = nn.Conv2d(width, channels, 1)

            def forward(self, x, y):
                return x + y * self.back(self.weigh(x)).sigmoid()
    """
    Path("own_gates_for_bench.py").write_text(textwrap.dedent(source), encoding="utf-8")
    assert afftool(monkeypatch, *COST, "--fusion", "own_gates_for_bench:Gate:width=2", "--channels", "8") == 0
    assert latest()[-1]["params"] == (8 * 2 + 2) + (2 * 8 + 8)


@pytest.mark.parametrize(
    ("source", "name", "hint"),
    [
        (None, "not_there_at_all:Gate", "cd to its folder"),
        ("import surely_not_installed\n", "own_broken_one:Gate", "surely_not_installed"),
        ("class Gates: pass\n", "own_broken_two:Gate", "own_broken_two:Gates"),
    ],
)
def test_a_module_that_does_not_load_is_refused_before_anything_is_measured(
    source, name, hint, monkeypatch, capsys
) -> None:
    if source:
        Path(name.partition(":")[0] + ".py").write_text(source, encoding="utf-8")
    assert afftool(monkeypatch, *COST, "--fusion", f"aff,{name}") == 2
    assert hint in capsys.readouterr().err


def test_explain_and_per_module_add_tables_whose_sums_are_the_totals(monkeypatch, capsys) -> None:
    words = ["--fusion", "aff", "--explain", "--per-module", "--baseline", "none", "--out", "r.md"]
    assert afftool(monkeypatch, *COST, *words) == 0
    flops = f"{latest()[0]['flops']:,}"
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("total") and flops in line for line in lines)
    assert any("local_att" in line for line in lines)
    assert "## Operators of aff" in Path("r.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_in_json_the_operators_and_modules_add_up_to_the_records(mode: str, monkeypatch, capsys) -> None:
    words = ["bench", "-m", "cost,memory", "--backend", "eager", "--fusion", "iaff,sk", "--mode", mode, "--size", "7"]
    words += ["--channels", "16", "--batch", "2", "--device", "cpu"]
    assert afftool(monkeypatch, *words, "--explain", "--per-module", "--json", "--out", "r.json") == 0
    document = json.loads(capsys.readouterr().out)
    assert json.loads(Path("r.json").read_text(encoding="utf-8")) == document
    records = {record["identity"]: record for record in document["records"]}
    assert {case["identity"] for case in document["operators"]} == set(records)
    assert {case["identity"] for case in document["modules"]} == set(records)
    for case in document["operators"]:
        record = records[case["identity"]]
        assert {name: record[name] for name in case if name in record} == {n: v for n, v in case.items() if n in record}
        assert record["uncounted_ops"] == {}
        assert all(row["formula"] and row["calls"] for row in case["rows"])
        assert {"fvcore_flops", "torch_flops", "mac_only"} < set(case["rows"][0])
        for direction, prefix in (("forward", ""), ("backward", "backward_")):
            rows = [row for row in case["rows"] if row["direction"] == direction]
            for name in ("macs", "flops", "moved_bytes"):
                assert (sum(row[name] for row in rows) if rows else None) == record[prefix + name]
    for case in document["modules"]:
        record, whole = records[case["identity"]], case["rows"][0]
        assert whole["module"] == ""
        for name in ("params", "live_params", "macs", "flops", "moved_bytes", "backward_flops", "saved_bytes"):
            assert whole[name] == record[name], name
        if mode == "train":
            assert sum(row["own_saved_bytes"] for row in case["rows"]) == record["saved_bytes"]
            parts = {row["module"]: row for row in case["rows"]}
            if "local_att" in parts:
                below = [row["own_saved_bytes"] for path, row in parts.items() if path.startswith("local_att.")]
                assert parts["local_att"]["saved_bytes"] == sum(below) > 0


def test_a_store_that_is_not_ours_stops_the_bench_before_it_starts(monkeypatch, capsys) -> None:
    Path("notes.txt").write_text("mine\n" * 50)
    assert afftool(monkeypatch, *COST, "--fusion", "aff", "--store", "notes.txt") == 2
    assert Path("notes.txt").read_text() == "mine\n" * 50
    assert "hint:" in capsys.readouterr().err


def test_a_kill_during_a_bench_loses_no_finished_record() -> None:
    batches = ",".join(map(str, range(1, 400)))
    bench = started(*COST, "--fusion", "add,aff", "--batch", batches)
    assert bench.stdout is not None
    rows = (line for line in bench.stdout if not line.startswith("..."))  # a slow machine is told how far it is
    told = list(itertools.islice(rows, 12))
    os.kill(bench.pid, signal.SIGKILL)
    told += rows
    bench.communicate()
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        run = store.run("latest")
    assert not run.finished
    assert all("params" in line for line in told)
    assert 12 <= len(told) <= len(run.records) < 2 * 399


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on() -> None:
    batches = ",".join(map(str, range(1, 400)))
    bench = started(*COST, "--fusion", "add,aff", "--batch", batches)
    assert bench.stdout is not None
    records = (
        line for line in bench.stdout if not line.startswith("...")
    )  # on a slow machine it also tells how far it is
    told = list(itertools.islice(records, 4))
    bench.send_signal(signal.SIGINT)
    _, errors = bench.communicate()
    assert bench.returncode == 130
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        run = store.run("latest")
    assert not run.finished
    assert len(run.records) >= len(told)
    assert f"{len(run.records)} records are saved as run {run.id}" in errors
    assert "Traceback" not in errors


@pytest.mark.long
def test_two_benches_into_one_store_lose_none() -> None:
    benches = [started(*COST, "--fusion", fusion, "--batch", "1,2,3,4") for fusion in ("aff", "iaff")]
    for bench in benches:
        _, errors = bench.communicate()
        assert bench.returncode == 0, errors
    with Store.open(".afftool/runs.sqlite", create=False) as store:
        runs = store.runs()
    assert [run.finished for run in runs] == [True, True]
    assert {(r.fusion, r.batch) for run in runs for r in run.records} >= {("aff", 4), ("iaff", 4)}
    assert [len(run.records) for run in runs] == [8, 8]


OWN = """\
from torch import nn


class Fine(nn.Module):
    def forward(self, x, y):
        return x + y


class Breaks(Fine):
    def forward(self, x, y):
        raise ValueError("not today")


class Asks(Fine):
    def __init__(self, answer):
        super().__init__()


class Narrow(Fine):
    def __init__(self, channels):
        if channels > 4:
            raise ValueError("too wide")
        super().__init__()


three = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    return name


@pytest.mark.parametrize(
    ("fusion", "says"),
    [
        ("os:getcwd", "gave a str, not an nn.Module"),
        ("{own}:three", "is not a class or a function"),
        ("{own}:Asks", "missing 1 required positional argument"),
        ("{own}:Fine:width=8", "takes no key 'width'"),
        ("{own}:Nobody", "has no attribute 'Nobody'"),
        ("type:three", "no module named 'type'"),
    ],
)
def test_what_is_no_module_is_refused_before_anything_is_measured(monkeypatch, capsys, own, fusion, says) -> None:
    fusion = fusion.format(own=own)
    assert afftool(monkeypatch, *COST, "--fusion", f"{own}:Fine,{fusion}") == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""
    assert not Path(".afftool").exists()


def test_a_forward_that_fails_is_a_row_and_fails_the_command_only_if_it_is_to_be_strict(
    monkeypatch, capsys, own
) -> None:
    words = (*COST, "--fusion", f"{own}:Breaks")
    assert afftool(monkeypatch, *words) == 0
    assert [(row["fusion"], row["status"]) for row in latest()] == [("add", "ok"), (f"{own}:Breaks", "failed")]
    assert "not today" in str(latest()[1]["reason"])
    assert afftool(monkeypatch, *words, "--strict") == 6
    assert "1 of 2 rows failed" in capsys.readouterr().err
    assert [row["status"] for row in latest()] == ["ok", "failed"]  # stored all the same
    assert afftool(monkeypatch, *COST, "--fusion", "aff", "--strict") == 0


def test_a_module_that_some_widths_do_not_suit_is_measured_at_the_others(monkeypatch, own) -> None:
    assert afftool(monkeypatch, *COST, "--fusion", f"{own}:Narrow", "--channels", "4,8", "--baseline", "none") == 0
    assert [(row["channels"], row["status"]) for row in latest()] == [(4, "ok"), (8, "failed")]
