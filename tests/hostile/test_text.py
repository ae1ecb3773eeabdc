"""Text of others, wherever it comes out: shown as it is written, never obeyed, never dropped, cut where it is huge."""

from __future__ import annotations

import csv
import io
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fuzzing import AT_LENGTH, fuzz
from hypothesis import strategies
from made_up_runs import ENVIRONMENT, record, timed

from afftool import console, visible
from afftool.cli import main
from afftool.errors import LoadError
from afftool.failure import Failure
from afftool.formats import renderer
from afftool.formats.markdown import escape
from afftool.gate import ci
from afftool.gate.judge import Judgement, Verdict
from afftool.gate.say import markdown
from afftool.plain import toml
from afftool.record import Environment, Run
from afftool.report import bench_report
from afftool.store import Store
from afftool.tables import Column, Table

EVIL = "a\x1b[2J\x07\x08\r\x9b1mb\u202ec\u2066d\u200be\u2028f\x85g\x00h\ud800i\ufeffj"
SHOWN = r"a\x1b[2J\x07\x08\r\x9b1mb\u202ec\u2066d\u200be\u2028f\x85g\x00h\ud800i\ufeffj"
HIDDEN = set(EVIL) - set(SHOWN)
"""The characters that must come out nowhere."""


def afftool(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["afftool", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def evil_run(**fields: object) -> Run:
    return Run(
        id=1,
        command=EVIL,
        started=EVIL,
        environment=Environment(**{**ENVIRONMENT.to_dict(), "cpu": EVIL, "platform": EVIL}),
        baseline="add",
        records=(
            timed("add", 1.0),
            timed(f"aff:{EVIL}", 2.0),
            record("iaff", status="failed", reason=EVIL, **fields),
        ),
    )


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that somebody was sent, and the folder it lies in."""
    monkeypatch.chdir(tmp_path)
    run = evil_run()
    with Store.open("runs.sqlite") as store:
        command, texts = EVIL.replace("\ud800", ""), run.environment
        number = store.begin(command, texts, "add")
        for one in run.records:
            store.append(number, one)
        store.finish(number)
    return tmp_path


def test_what_cannot_be_seen_is_shown_and_nothing_else_is_touched() -> None:
    assert visible.line(EVIL) == SHOWN
    assert visible.line(SHOWN) == SHOWN
    assert visible.line("a\tb\nc") == r"a\tb\nc"
    assert visible.lines("a\tb\nc") == "a\tb\nc"
    fine = "µs · é 中 🙂 C:\\new \u00a0 x**2 | ± ▁▂▃ ́ Ωא"
    assert visible.line(fine) == fine


@AT_LENGTH
def test_any_text_comes_out_of_every_cleaning_without_a_control(examples: int) -> None:
    def check(text: str) -> None:
        for cleaned in (visible.line(text), visible.lines(text), visible.said(text)):
            cleaned.encode()
            assert visible.lines(cleaned) == cleaned
            assert all(c.isprintable() or c in "\t\n" or ord(c) > 0x7F for c in cleaned)
        assert "\n" not in visible.line(text)
        document = json.dumps({"text": text}, ensure_ascii=False)
        assert json.loads(visible.json_escaped(document)) == {"text": text}

    fuzz(examples, strategies.text(strategies.characters(exclude_categories=())), check)


@pytest.mark.parametrize(
    "words", [["runs"], ["report"], ["runs", "--json"], ["report", "--format", "md,csv,html,json"]]
)
def test_a_received_store_moves_no_cursor(received: Path, monkeypatch, capsys, words: list[str]) -> None:
    assert afftool(monkeypatch, *words, "--store", "runs.sqlite") == 0
    said = capsys.readouterr()
    assert not HIDDEN & set(said.out + said.err)
    assert r"\x1b[2J" in said.out.replace("\\\\", "\\").replace("\\[", "[").replace("u001b", "x1b")


@pytest.mark.parametrize("format", ["md", "html", "csv"])
def test_a_written_report_shows_it(format: str) -> None:
    text = renderer(format)(bench_report(evil_run()))
    assert not HIDDEN & set(text)
    assert r"\u202ec" in text.replace("\\\\", "\\")


def test_json_escapes_it_and_gives_it_back_exactly() -> None:
    text = renderer("json")(bench_report(evil_run()))
    assert not HIDDEN & set(text)
    assert json.loads(text)["records"][2]["reason"] == EVIL


def test_a_study_of_others_is_printed_as_toml_that_reads_the_same() -> None:
    text = "a\x7fb\x9bc\u202ed\U000e0041e"
    shown = toml({"note": text})
    assert not set(text[1::2]) & set(shown)
    assert tomllib.loads(shown) == {"note": text}


def test_an_entity_in_a_name_is_no_character_on_a_page() -> None:
    assert escape("a&#x202e;b &lt;c&gt; d & e") == r"a\&#x202e;b \&lt;c\&gt; d & e"


def test_the_terminal_is_told_no_markup_and_no_controls(monkeypatch, capsys) -> None:
    """As rich draws it too, whose markup a name might hold."""
    monkeypatch.setattr(console, "_is_terminal", lambda stream: True)
    columns = (Column("a", f"[red]{EVIL}"), Column("b", "[link=http://x]b[/link]"))
    console.table(Table(title="", columns=columns, rows=(("[bold]x", EVIL),)))
    with console.following() as follow:
        follow.progress(1, 2, f"[blink]{EVIL}")
        follow.line(f"[red]{EVIL}")
    said = capsys.readouterr().out
    assert "[red]" in said
    assert "[link=http://x]b" in said
    assert not HIDDEN - {"\x1b", "\r"} & set(said)
    assert "\x1b[2J" not in said


def test_every_way_to_print_is_clean(capsys) -> None:
    console.out(EVIL)
    console.note(EVIL)
    console.error(EVIL, EVIL)
    console.pairs([(EVIL, f"{EVIL}\nb")])
    console.table(Table(title="", columns=(Column("a", EVIL),), rows=((f"{EVIL}\nb",),)))
    console.command(f"::error::{EVIL}")
    console.Lines(sys.stdout, lambda: 0.0).line(EVIL)
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        console.bug(error)
    said = capsys.readouterr()
    assert not HIDDEN & set(said.out + said.err)
    assert (said.out + said.err).count(SHOWN) >= 9


def test_no_line_of_others_is_a_command_to_a_ci_runner(capsys) -> None:
    console.note("cannot load it: x\n::error file=a::b\n  ::stop-commands::c\nsee ##[group]d ##vso[task.setvariable]e")
    console.out("## a heading, and std::vector")
    said = capsys.readouterr()
    assert said.err == (
        "cannot load it: x\n\\x3a:error file=a::b\n  \\x3a:stop-commands::c\n"
        "see \\x23#[group]d \\x23#vso[task.setvariable]e\n"
    )
    assert said.out == "## a heading, and std::vector\n"


def judgement() -> Judgement:
    verdict = Verdict(case=EVIL, metric="macs", outcome="regression", before=1, after=2, reason=f"{EVIL}\n::error::b")
    return Judgement((verdict,), before=EVIL, after=EVIL, notes=(EVIL,))


def test_what_the_gate_hands_on_is_clean() -> None:
    texts = (ci.junit(judgement(), seconds=1), markdown(judgement()), *ci.commands(judgement(), config=None))
    texts += (ci.render(ci.document(judgement(), exit_code=3, seconds=1.0)),)
    for text in (*texts, ci.command_of_refusal(EVIL), ci.junit_of_refusal(LoadError(EVIL), seconds=1)):
        assert not HIDDEN & set(text)
        text.encode()
    [case] = ElementTree.fromstring(texts[0]).iter("testcase")
    assert case.get("classname") == SHOWN
    assert "\n" not in texts[2]


def test_a_huge_text_is_cut_and_says_so(capsys) -> None:
    failure = Failure.of(ValueError("x" * 10_000_000))
    assert len(failure.message) < 30_000
    assert failure.reason.endswith("... (cut: 10,000,000 characters in all)")
    assert len(failure.reason) < 3_000
    console.error(LoadError("y" * 10_000_000).message)
    said = capsys.readouterr().err
    assert len(said) < 30_000
    assert "(cut: 10,000,000 characters in all)" in said
    assert len(escape("z" * 10_000_000)) < 30_000


def test_an_exception_that_cannot_be_told_is_still_a_reason() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert Failure.of(Silent()).reason == "Silent: its message cannot be told: RuntimeError"


FORMULAS = (
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "=",
    "-",
    '=HYPERLINK("http://x")',
)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_that_a_spreadsheet_would_calculate_is_text(text: str) -> None:
    row = csv_row(reason=text)
    assert row["reason"] == text.replace("\r", r"\r") if text[0] == "\r" else f"'{text}"


@pytest.mark.parametrize("text", ["-1.5", "+2e-3", "-.5", "a=b", "1-2", ""])
def test_a_number_stays_a_number_and_other_text_as_it_is(text: str) -> None:
    assert csv_row(reason=text)["reason"] == text


def test_pandas_still_reads_negative_numbers_beside_formulas() -> None:
    import pandas

    text = renderer("csv")(bench_report(evil_run(error_vs_eager=-1.5)))
    rows = pandas.read_csv(io.StringIO(text), comment="#")
    assert rows["error_vs_eager"].tolist()[2] == -1.5


def csv_row(**fields: object) -> dict[str, str]:
    run = Run(
        id=1, command="", started="", environment=ENVIRONMENT, records=(record("aff", status="failed", **fields),)
    )
    text = renderer("csv")(bench_report(run))
    body = "".join(line for line in io.StringIO(text, newline="") if not line.startswith("# "))
    return next(csv.DictReader(io.StringIO(body, newline="")))


OWN = '''
from torch import nn

class Bad(nn.Module):
    """A \\x1b]0;title\\x07 docstring."""

    def forward(self, x, y):
        raise ValueError("\\x1b[31m\\u202e\\r" + "x" * 3_000_000)
'''


@pytest.mark.long
def test_an_exception_of_the_users_module_is_stored_and_printed_clean(place, tmp_path: Path) -> None:
    (tmp_path / "own_evil.py").write_text(OWN)
    words = ["--fusion", "own_evil:Bad", "--measure", "cost", "--size", "7", "--baseline", "none", "--json"]
    done = place.run("bench", *words)
    assert done.returncode in (2, 6)
    assert not {"\x1b", "\u202e"} & set(done.stdout + done.stderr)
    assert r"\x1b[31m\u202e" in done.stderr
    assert len(done.stdout + done.stderr) < 100_000


def test_a_file_name_that_is_no_text_is_named_and_not_a_bug_of_ours(refuses: Callable[..., str]) -> None:
    assert r"there is no run store at no\udcff\x1b.sqlite" in refuses(2, "report", "--store", "no\udcff\x1b.sqlite")


def test_a_stream_without_the_letters_is_written_to_all_the_same(received: Path, place) -> None:
    done = place.run("report", "--store", "runs.sqlite", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "1.00 ms" in done.stdout
