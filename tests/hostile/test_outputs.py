"""Files that people name: written whole or not at all, never over a store or through a link, over our own without a
word, over anything else only where that was asked for."""

from __future__ import annotations

import codecs
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_runs import ENVIRONMENT, bench_run, timed

from afftool import catalog, written
from afftool.cli import main
from afftool.errors import BaselineError, LoadError, StoreError, UserError
from afftool.formats import destinations, is_report, renderer, write
from afftool.gate import reference
from afftool.gate.config import write_starting_file
from afftool.gate.listeners import JUNIT
from afftool.gate.reference import Reference
from afftool.measure.ceilings.roofline import Ceilings, CeilingsFile
from afftool.report import bench_report
from afftool.store import Store
from afftool.study.cells import FileCheckpoint
from afftool.study.tensorboard import Log

STORE = Path(".afftool/runs.sqlite")
REPORT = bench_report(bench_run())


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store in it, and some other things of the user's."""
    monkeypatch.chdir(tmp_path)
    with Store.open(STORE) as store:
        run = store.begin("afftool bench --fusion aff", ENVIRONMENT, "add")
        for one in (timed("add", 0.5), timed("aff", 2.0)):
            store.append(run, one)
        store.finish(run)
    Path("notes.md").write_text("# My notes\n\n- **do**: not lose\n")
    Path("numbers.csv").write_text("# Title: mine\na,b\n1,2\n")
    Path("own.json").write_text('{"schema": 1}\n')
    Path("page.html").write_text("<!doctype html>\n<title>mine</title>\n")
    Path("gate.py").write_text("x = 1\n")
    return tmp_path


def afftool(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["afftool", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def content(folder: Path) -> dict[str, bytes]:
    """Every file below it, but those that SQLite keeps while it reads."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(("-wal", "-shm")))
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "words",
    [
        ["report", "--format", "md", "--out", ".afftool/runs.sqlite"],
        ["report", "--format", "md", "--out", ".afftool/runs.sqlite", "--force"],
        ["compare", "1", "1", "--format", "csv", "--out", ".afftool/runs.sqlite", "--force"],
    ],
)
def test_no_report_goes_over_a_run_store(stored: Path, refuses: Callable[..., str], words: list[str]) -> None:
    said = refuses(2, *words)
    assert "is a database, as run stores are; nothing is written over one" in said
    assert "name another file by --out" in said


@pytest.mark.parametrize("name", ["runs.sqlite-wal", "runs.sqlite-shm", "runs.sqlite-journal"])
def test_nor_over_what_the_database_keeps_beside_it(stored: Path, name: str) -> None:
    path = STORE.with_name(name)
    path.write_bytes(b"\0" * 64)
    with pytest.raises(LoadError, match="is a database"):
        destinations(path, ["md"], stem="report", force=True)
    assert path.read_bytes() == b"\0" * 64
    path.unlink()  # it comes and goes
    for refused in (
        lambda: destinations(path, ["md"], stem="report", force=True),
        lambda: write(REPORT, [("md", path)]),
    ):
        with pytest.raises(LoadError, match="is a database"):
            refused()
    assert not path.exists()


def test_nor_over_a_store_that_came_there_after_the_check(tmp_path: Path) -> None:
    files = destinations(tmp_path / "runs.md", ["md"], stem="report")
    with Store.open(tmp_path / "runs.md"):
        pass
    before = content(tmp_path)
    with pytest.raises(LoadError, match="is a database"):
        write(REPORT, files, force=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("command", ["report", "compare"])
@pytest.mark.parametrize("name", ["notes.md", "numbers.csv", "own.json", "page.html", "gate.py"])
def test_a_file_of_the_users_is_replaced_only_by_force(
    stored: Path, monkeypatch, capsys, name: str, command: str
) -> None:
    words = [command, *(["1", "1"] if command == "compare" else []), "--out", name]
    words += ["--format", "md"] if name == "gate.py" else []
    before = content(stored)
    assert afftool(monkeypatch, *words) == 2
    said = capsys.readouterr().err
    assert f"error: {name} is there already, and is no report of afftool" in said
    assert "replace this one by --force" in said
    assert content(stored) == before
    assert afftool(monkeypatch, *words, "--force") == 0
    assert content(stored).keys() == before.keys()
    assert Path(name).read_bytes() != before[str(stored / name)]


def test_every_command_with_out_refuses_before_any_work_and_leaves_nothing(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(stored)
    for words in (
        ["bench", "--fusion", "aff", "--store", "new/runs.sqlite"],
        ["inspect", "aff"],
        ["ablate", "scale", "--data", "digits", "--store", "new/runs.sqlite"],
    ):
        assert afftool(monkeypatch, *words, "--out", "notes.md") == 2
        assert "notes.md is there already, and is no report of afftool" in capsys.readouterr().err
    assert content(stored) == before
    assert not Path("new").exists()
    assert not Path("ablations").exists()


def test_a_refused_ablation_leaves_no_empty_folder(stored: Path, refuses: Callable[..., str]) -> None:
    refuses(2, "ablate", "scale", "--data", "cifar10:nowhere", "--tensorboard", "logs", "--engine", "nothing")


@pytest.mark.parametrize("name", sorted(catalog.FORMATS))
def test_a_report_of_ours_is_replaced_without_a_word_and_read_as_ever(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"r.{name}"
    for _ in range(2):
        write(REPORT, destinations(path, [], stem="bench"))
    text = path.read_text(encoding="utf-8")
    assert is_report(text.encode())
    assert renderer(name)(REPORT)[-200:] in text
    path.write_text(renderer(name)(REPORT), encoding="utf-8")  # as older versions and `> r.md` have it
    destinations(path, [], stem="bench")
    write(REPORT, [(name, path)])
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes().replace(b"\n", b"\r\n"))  # as git and editors leave it
    write(REPORT, destinations(path, [], stem="bench"))


def test_a_marked_csv_is_read_by_pandas_and_an_empty_file_is_anybody_s(tmp_path: Path) -> None:
    import pandas

    path = tmp_path / "r.csv"
    path.touch()
    write(REPORT, destinations(path, [], stem="bench"))
    assert pandas.read_csv(path, comment="#")["latency_ms"].tolist()[:2] == [0.5, 2.0]


def test_nothing_is_written_through_a_link(stored: Path, refuses: Callable[..., str]) -> None:
    Path("latest.md").symlink_to("notes.md")
    Path("dangling.md").symlink_to("elsewhere/new.md")
    Path("store.md").symlink_to(STORE)
    for name in ("latest.md", "dangling.md", "store.md"):
        with pytest.raises(LoadError, match=r"is a link to .*, and nothing is written through one"):
            destinations(Path(name), [], stem="report", force=True)
    assert "it is a link to notes.md" in refuses(2, "report", "--out", "latest.md", "--force")


def test_another_name_of_the_file_keeps_its_content(tmp_path: Path) -> None:
    path, other = tmp_path / "r.md", tmp_path / "kept.md"
    write(REPORT, [("md", path)])
    before = path.read_text(encoding="utf-8")
    os.link(path, other)
    write(bench_report(bench_run()), [("md", path)])
    path.write_text("changed")
    assert other.read_text(encoding="utf-8") == before


def test_permissions_are_the_umask_s_or_those_of_the_file_replaced(tmp_path: Path) -> None:
    path = tmp_path / "r.md"
    before = os.umask(0o027)
    try:
        write(REPORT, [("md", path)])
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)
    path.chmod(0o600)
    write(REPORT, [("md", path)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path, monkeypatch) -> None:
    """As on a full disk, which a limit on the size of files is like."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "r.md"
    write(REPORT, [("md", path)])
    before = content(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
    try:
        with pytest.raises(LoadError, match="cannot be written: File too large"):
            write(REPORT, [("md", path)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert content(tmp_path) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_device_is_said(stored: Path, monkeypatch, capsys) -> None:
    assert afftool(monkeypatch, "report", "--out", "/dev/full") == 2
    assert "/dev/full cannot be written: No space left on device" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_written_to_as_it_is_and_one_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    files = destinations(pipe, ["csv"], stem="report")
    assert files == [("csv", pipe)]
    with pytest.raises(LoadError, match="nobody reads that pipe"):
        write(REPORT, files)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    write(REPORT, files)  # a pipe holds more than this
    with os.fdopen(reader, "rb") as stream:
        assert b"latency_ms" in stream.read()
    with pytest.raises(LoadError, match="takes one format"):
        destinations(pipe, ["md", "csv"], stem="report")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="this system has no such name")
def test_dev_stdout_and_dev_null_are_what_they_say(stored: Path, place) -> None:
    done = place.run("report", "--out", "/dev/stdout")
    assert done.returncode == 0, done.stderr
    assert "# afftool bench: aff against add" in done.stdout
    assert place.run("report", "--out", "/dev/null", "--format", "csv").returncode == 0


@pytest.mark.parametrize("out", ["x" * 300 + ".md", "file/below.md", "/proc/nothing/here.md", "folder.md"])
def test_a_path_that_cannot_be_is_said_and_nothing_is_made(tmp_path: Path, monkeypatch, out: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("folder.md/report.md").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LoadError, match="cannot be written"):
        destinations(Path(out), [], stem="report")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_write_protected_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.md"
    write(REPORT, [("md", path)])
    path.chmod(0o400)
    monkeypatch.setattr(written.os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(LoadError, match="it is write-protected"):
        destinations(path, [], stem="report")


def test_a_baseline_replaces_a_baseline_and_nothing_else(tmp_path: Path) -> None:
    path, empty = tmp_path / "b.json", Reference(readings={}, environment=ENVIRONMENT)
    for there in (None, "", "{", '{"cases": {}}', '{\n<<<<<<< HEAD\n "afftool": "1"', path):
        if isinstance(there, str):
            path.write_text(there)
        reference.refuse_unwritable(path)
        reference.write(path, empty)
    for name, there in {"pyproject.toml": "[tool]\n", "package.json": '{"name": "mine"}', "own.py": "x = 1"}.items():
        other = tmp_path / name
        other.write_text(there)
        with pytest.raises(UserError, match="is there already, and is no baseline of afftool"):
            reference.refuse_unwritable(other)
        with pytest.raises(BaselineError, match="is no baseline"):
            reference.write(other, empty)
        assert other.read_text() == there
    (tmp_path / "link.json").symlink_to(path)
    with pytest.raises(BaselineError, match="is a link"):
        reference.write(tmp_path / "link.json", empty)
    assert not list(tmp_path.glob(".part*"))


def test_the_gate_refuses_a_file_of_the_users_before_it_measures(stored: Path, refuses: Callable[..., str]) -> None:
    fusion = ["--fusion", "aff", "--metric", "params"]
    said = refuses(2, "check", *fusion, "--write-baseline", "--baseline", "numbers.csv")
    assert "numbers.csv is there already, and is no baseline of afftool" in said
    said = refuses(2, "check", *fusion, "--junit", "gate.py")
    assert "gate.py is there already, and is no JUnit file of afftool" in said


def test_a_junit_file_of_ours_is_replaced(tmp_path: Path) -> None:
    from afftool.gate import ci
    from afftool.gate.judge import Judgement

    path = tmp_path / "junit.xml"
    for _ in range(2):
        written.write(path, ci.junit(Judgement(()), seconds=1), JUNIT)
    path.write_text('<?xml version="1.0"?>\n<testsuites name="pytest tests"></testsuites>\n')
    with pytest.raises(UserError, match="is no JUnit file of afftool"):
        written.refuse(path, JUNIT)


def test_a_starting_file_goes_through_no_link_and_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "afftool.toml").symlink_to(tmp_path / "elsewhere.toml")
    with pytest.raises(UserError, match="configures the gate already"):
        write_starting_file(tmp_path)
    assert not (tmp_path / "elsewhere.toml").exists()


def test_ceilings_and_checkpoints_go_through_no_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "ceilings.json").symlink_to(mine)
    (tmp_path / "cell.pt").symlink_to(mine)
    file = CeilingsFile(tmp_path / "ceilings.json")
    with pytest.raises(StoreError, match="is a link"):
        file.keep("abc", Ceilings(device="cpu", taken="", bandwidths=(), flops_per_s={}, launch_s=1.0))
    with pytest.raises(OSError, match="is a link"):
        FileCheckpoint(tmp_path, "cell").save(b"weights")
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["a", "a/seed-0"])
def test_a_log_goes_through_no_link_and_to_no_folder_above(tmp_path: Path, name: str) -> None:
    link = tmp_path / "logs" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path)
    with pytest.raises(LoadError, match="is a link"):
        Log(tmp_path / "logs", {"identity": ("a", 0)})
    assert Log(tmp_path / "new", {"identity": ("..", 0)})._place("identity") == tmp_path / "new" / "_." / "seed-0"
    assert not (tmp_path / "new").exists()


SMALL = ["--channels", "8", "--size", "4", "--batch", "2", "--steps", "1", "--device", "cpu"]
FOLDER = "add-8c-4x4-b2-infer-cpu-eager"


def test_a_profile_replaces_its_own_files_alone(stored: Path, monkeypatch, capsys) -> None:
    out = stored / "out"
    (out / FOLDER).mkdir(parents=True)
    (out / FOLDER / "mine.txt").write_text("mine")
    (out / FOLDER / "report.md").write_text("mine")
    before = content(stored)
    assert afftool(monkeypatch, "profile", "add", *SMALL, "--out", "out") == 2
    assert "report.md is there already, and is no report of afftool" in capsys.readouterr().err
    assert content(stored) == before
    for _ in range(2):
        assert afftool(monkeypatch, "profile", "add", *SMALL, "--out", "out", "--force") == 0
    assert (out / FOLDER / "mine.txt").read_text() == "mine"
    assert not list(out.rglob(".part*"))


@pytest.mark.parametrize("name", [FOLDER, "tensorboard", f"{FOLDER}/trace.json.gz", f"tensorboard/{FOLDER}"])
def test_a_profile_goes_through_no_link_in_its_folder(stored: Path, monkeypatch, capsys, name: str) -> None:
    (stored / "elsewhere").mkdir()
    link = stored / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(stored / "elsewhere")
    before = content(stored)
    assert afftool(monkeypatch, "profile", "add", *SMALL, "--out", "out", "--force") == 2
    assert "is a link" in capsys.readouterr().err
    assert content(stored) == before
    assert not list((stored / "elsewhere").iterdir())


def test_a_refused_profile_leaves_no_folder(stored: Path, refuses: Callable[..., str]) -> None:
    refuses(2, "profile", "no_such_module:Gate", *SMALL, "--out", "out/below")


def test_a_default_report_over_a_file_of_the_users_is_refused_and_printed_all_the_same(
    stored: Path, monkeypatch, capsys
) -> None:
    reports = stored / ".afftool" / "reports"
    reports.mkdir()
    (reports / "bench-2.md").write_text("mine")
    words = ["bench", "--fusion", "add", "--baseline", "none", "--measure", "cost", "--size", "4", "--channels", "8"]
    assert afftool(monkeypatch, *words) == 2
    said = capsys.readouterr()
    assert "is no report of afftool" in said.err
    assert "params" in said.out
    assert (reports / "bench-2.md").read_text() == "mine"
    with Store.open(STORE, create=False) as store:
        assert [one.fusion for one in store.run().records] == ["add"], "what was measured is stored"
