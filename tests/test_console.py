from __future__ import annotations

import io
import subprocess
import sys

import pytest

from afftool import console
from afftool.tables import Column, Table


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_off_a_terminal_progress_is_told_now_and_then_with_the_time_left() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = console.Lines(stream, clock)
    for second in range(1, 31):
        clock.now = float(second)
        lines.progress(second, 60, "timing aff")
    told = stream.getvalue().splitlines()
    assert told == [
        "... 17% done after 10 s, about 50 s left: timing aff",
        "... 33% done after 20 s, about 40 s left: timing aff",
        "... 50% done after 30 s, about 30 s left: timing aff",
    ]


def test_results_are_told_at_once_and_do_not_silence_the_time_left() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = console.Lines(stream, clock)
    for second in range(4, 25, 4):  # results come faster than progress is told
        clock.now = float(second)
        lines.progress(second, 40, f"cell {second // 4}")
        lines.line(f"result {second // 4}")
    assert stream.getvalue().splitlines() == [
        *("result 1", "result 2", "... 30% done after 12 s, about 28 s left: cell 3"),
        *("result 3", "result 4", "result 5", "... 60% done after 24 s, about 16 s left: cell 6", "result 6"),
    ]


def test_progress_without_an_end_promises_no_time_left() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = console.Lines(stream, clock)
    clock.now = 11.0
    lines.progress(0, 4, "compiling")
    assert stream.getvalue() == "... 0% done after 11 s: compiling\n"


def test_a_plain_table_is_aligned_and_marks_the_best(capsys) -> None:
    columns = (Column("a", "name"), Column("b", "number", numeric=True))
    console.table(Table(title="", columns=columns, rows=(("x", 1), ("long", None))).mark_best("b"))
    assert capsys.readouterr().out == "name  number\n----  ------\nx         1*\nlong\n"


def test_errors_go_to_stderr_with_their_hint(capsys) -> None:
    console.error("it is wrong", "do this")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: it is wrong\nhint: do this\n")


TALKING = """
import ctypes, os, subprocess, sys
from afftool import console
held = sys.stdout
print("before")
with console.stdout_kept():
    print("print")
    held.write("held\\n")
    os.write(1, b"descriptor\\n")
    ctypes.CDLL(None).puts(b"from c")
    subprocess.run(["echo", "child"], check=True)
    try:
        with console.stdout_kept():
            raise KeyError
    except KeyError:
        print("nested")
console.write("document")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the C library has another name there")
def test_while_stdout_is_kept_whatever_anybody_prints_goes_to_stderr() -> None:
    done = subprocess.run([sys.executable, "-c", TALKING], capture_output=True, text=True, check=True)
    assert done.stdout == "before\ndocument"
    assert set(done.stderr.split("\n")) >= {"print", "held", "descriptor", "from c", "child", "nested"}
