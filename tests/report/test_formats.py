"""Golden files pin each format; `UPDATE_GOLDEN=1 pytest tests/report/test_formats.py` writes them anew."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_runs import bench_run, record

from afftool import catalog
from afftool.errors import LoadError, UnknownName
from afftool.formats import destinations, renderer, write
from afftool.record import Record, Run
from afftool.report import bench_report

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(catalog.FORMATS))
def test_a_format_writes_what_its_golden_file_says(name: str) -> None:
    path, text = GOLDEN / f"bench.{name}", renderer(name)(bench_report(bench_run()))
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8", newline="")
    assert text == path.read_text(encoding="utf-8")


def csv_rows(run: Run | None = None) -> list[dict[str, str]]:
    text = renderer("csv")(bench_report(run or bench_run()))
    body = "".join(line for line in io.StringIO(text, newline="") if not line.startswith("# "))
    return list(csv.DictReader(io.StringIO(body, newline="")))


def test_csv_holds_every_stored_field_exactly() -> None:
    rows = csv_rows()
    assert len(rows) == len(bench_run().records)
    assert {f.name for f in dataclasses.fields(Record)} - {"samples_ms"} <= set(rows[0])
    aff = next(row for row in rows if (row["fusion"], row["backend"]) == ("aff", "compile"))
    assert float(aff["latency_ms"]) == 1 / 3
    assert float(aff["latency_ms_vs_baseline"]) == (1 / 3) / 0.25
    assert aff["peak_bytes"] == ""
    add = next(row for row in rows if (row["fusion"], row["backend"]) == ("add", "compile"))
    assert add["best"].split() == ["params", "macs", "flops", "latency_ms"]


def test_csv_tells_what_is_no_number_from_what_is_missing() -> None:
    errors = (float("nan"), float("inf"), None, 1e-7)
    records = tuple(record(error_vs_eager=error, peak_bytes=2**60 + 1 if error else None) for error in errors)
    rows = csv_rows(dataclasses.replace(bench_run(), records=records))
    assert [row["error_vs_eager"] for row in rows] == ["nan", "inf", "", "1e-07"]
    assert [row["peak_bytes"] for row in rows] == [str(2**60 + 1), str(2**60 + 1), "", str(2**60 + 1)]


def test_csv_survives_commas_quotes_hashes_and_line_ends_in_a_reason() -> None:
    failed = next(row for row in csv_rows() if row["status"] == "failed")
    assert failed["reason"] == 'a | b <c> & "d", #e\nf'


def test_pandas_reads_the_csv_with_its_comments() -> None:
    import pandas

    rows = pandas.read_csv(io.StringIO(renderer("csv")(bench_report(bench_run()))), comment="#")
    assert rows["latency_ms"].tolist()[:5] == [0.5, 2.0, 4.0, 0.25, 1 / 3]
    assert rows["reason"].tolist()[5] == 'a | b <c> & "d", #e\nf'


def test_json_is_one_document_of_exact_numbers() -> None:
    document = json.loads(renderer("json")(bench_report(bench_run())))
    assert list(document) == ["schema", "environment", "records"]
    assert document["records"][4]["latency_ms"] == 1 / 3
    assert document["records"][4]["peak_bytes"] is None


class Reader(HTMLParser):
    """Collects cells, and everything that would be loaded from elsewhere or run."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe") or any(key in ("src", "href") for key, _ in attrs):
            self.foreign.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_html_is_whole_escaped_and_needs_nothing_else() -> None:
    reader = Reader()
    reader.feed(renderer("html")(bench_report(bench_run())))
    assert reader.open == []
    assert reader.foreign == []
    assert 'a | b <c> & "d", #e\nf' in reader.texts


def test_markdown_rows_have_as_many_cells_as_their_header() -> None:
    text = renderer("md")(bench_report(bench_run()))
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) <= 1


@pytest.mark.parametrize(
    ("out", "formats", "expected"),
    [
        ("r.md", [], [("md", "r.md")]),
        ("r.HTML", [], [("html", "r.HTML")]),
        ("r.txt", ["md"], [("md", "r.txt")]),
        ("r.md", ["md", "csv"], [("md", "r.md"), ("csv", "r.csv")]),
        ("folder", [], [("md", "folder/bench.md"), ("csv", "folder/bench.csv")]),
        ("folder", ["json"], [("json", "folder/bench.json")]),
    ],
)
def test_suffix_and_formats_decide_the_files(tmp_path: Path, out: str, formats: list[str], expected: list) -> None:
    files = destinations(tmp_path / out, formats, stem="bench")
    assert [(name, path.relative_to(tmp_path).as_posix()) for name, path in files] == expected
    write(bench_report(bench_run()), files)
    assert all(path.stat().st_size for _, path in files)


@pytest.mark.parametrize("name", catalog.FORMATS)
def test_a_formats_name_is_the_suffix_of_its_files(tmp_path: Path, name: str) -> None:
    assert destinations(tmp_path / f"r.{name}", [], stem="bench") == [(name, tmp_path / f"r.{name}")]


def test_a_path_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, formats in (("r.xyz", []), ("file/r.md", []), ("file/in", ["md"])):
        with pytest.raises(LoadError):
            destinations(tmp_path / out, formats, stem="bench")
    with pytest.raises(UnknownName):
        destinations(tmp_path / "r.md", ["markdwon"], stem="bench")
