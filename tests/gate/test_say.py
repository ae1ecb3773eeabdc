"""A judgement told: checked against what reads it."""

import json
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from afftool.errors import BaselineError
from afftool.gate import ci
from afftool.gate.judge import Judgement, Verdict
from afftool.gate.say import headline, markdown, markdown_of_refusal, reasons, table
from afftool.stats import Interval


@pytest.fixture(scope="module")
def junit_schema():
    xmlschema = pytest.importorskip("xmlschema", reason="xmlschema is not installed")
    return xmlschema.XMLSchema(Path(__file__).parent / "data" / "junit.xsd")


def verdict(metric, outcome, **fields):
    return Verdict(case="pkg.gates:My_Gate<8> a|b *c*", metric=metric, outcome=outcome, **fields)


JUDGEMENT = Judgement(
    (
        verdict("params", "fine", before=4160, after=4160, ratio=Interval(1, 1, 1), rule="no change"),
        verdict(
            "macs",
            "regression",
            before=100,
            after=200,
            ratio=Interval(2, 2, 2),
            rule="no change",
            reason="100 more: <conv>",
        ),
        verdict(
            "latency_ms",
            "inconclusive",
            before=1.0,
            after=1.1,
            ratio=Interval(1.1, 0.9, 1.3),
            rule="5%",
            reason="-10% & +30%",
        ),
        verdict("throughput_per_s", "regression", rule="5%", reason="another machine", advisory=True),
        verdict("case", "broken", reason="ValueError: \x1b[31mred\x00 ☃", source="pkg/gates.py:12"),
        verdict("operators", "new", reason="no baseline"),
        verdict("recompiles", "skipped", reason="no compiler"),
        verdict("peak_bytes", "improved", before=200, after=100),
    ),
    before="main | (abc)",
    after="working tree",
    notes=("a `note`",),
)


def cases(text):
    return {case.get("name"): case for case in ElementTree.fromstring(text).iter("testcase")}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("judgement", [JUDGEMENT, Judgement(())], ids=["all outcomes", "empty"])
def test_junit_is_what_its_readers_accept(judgement, strict, junit_schema):
    junit_schema.validate(ci.junit(judgement, seconds=12.3456, strict=strict))


def test_the_schema_itself_refuses_what_is_no_junit(junit_schema):
    for wrong in ("<testsuites/>", '<testsuite name="a" tests="one" failures="0" errors="0"/>'):
        assert not junit_schema.is_valid(wrong)


def test_junit_counts_agree_with_its_cases_and_each_outcome_has_its_element():
    text = ci.junit(JUDGEMENT, seconds=1)
    suite = ElementTree.fromstring(text).find("testsuite")
    found = {name: [child.tag for child in case] for name, case in cases(text).items()}
    assert found == {
        "params": [],
        "macs": ["failure"],
        "latency_ms": ["skipped"],
        "throughput_per_s": ["skipped"],
        "case": ["error"],
        "operators": ["skipped"],
        "recompiles": ["skipped"],
        "peak_bytes": [],
    }
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["8", "1", "1", "4"]
    assert cases(text)["macs"].find("failure").get("message") == "100 more: <conv>"
    assert "." not in cases(text)["macs"].get("classname")


def test_junit_fails_on_inconclusive_if_the_check_does():
    found = cases(ci.junit(JUDGEMENT, seconds=1, strict=True))
    assert [child.tag for child in found["latency_ms"]] == ["failure"]


class Cells(HTMLParser):
    """The cells of the tables in a page, row by row, and the tags that are in it."""

    def __init__(self):
        super().__init__()
        self.rows, self.tags, self.inside = [], set(), False

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_markdown_renders_to_the_table_that_was_meant():
    page = Cells()
    page.feed(MarkdownIt("gfm-like", {"linkify": False}).render(markdown(JUDGEMENT)))
    assert page.rows[0] == ["case", "metric", "before", "after", "ratio", "rule", "verdict"]
    assert len(page.rows) == 1 + len(JUDGEMENT.verdicts)
    assert page.rows[2] == ["pkg.gates:My_Gate<8> a|b *c*", "macs", "100", "200", "2", "no change", "regression"]
    assert page.rows[3][4] == "1.100 [0.900, 1.300]"
    assert page.tags <= {"h2", "ul", "li", "strong", "p", "table", "thead", "tbody", "tr", "th", "td"}


def test_reasons_come_gravest_first_and_advice_last():
    assert [what.partition(":")[0] for what, _ in reasons(JUDGEMENT)] == [
        "regression",
        "broken",
        "no baseline",
        "inconclusive",
        "skipped",
        "regression (advisory)",
    ]
    assert headline(JUDGEMENT) == (
        "1 regression, 1 broken, 1 no baseline, 1 inconclusive, 1 skipped, 1 improved, 1 fine, 1 advisory"
    )


def test_many_unchanged_metrics_are_counted_and_not_listed():
    many = Judgement((*[verdict("macs", "fine")] * 100, verdict("latency_ms", "fine"), verdict("macs", "regression")))
    shown = table(many)
    assert shown.values("verdict") == ["fine", "regression"]
    assert shown.note == "100 more exact metrics are unchanged."


def test_annotations_are_escaped_and_point_to_the_source_or_the_configuration():
    lines = list(ci.commands(JUDGEMENT, config=Path("afftool.toml")))
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::warning", "::notice", "::error", "::warning"]
    assert lines[0] == (
        "::error file=afftool.toml,title=regression%3A macs::pkg.gates:My_Gate<8> a|b *c*: 100 more: <conv>"
    )
    assert "-10%25 & +30%25" in lines[1]
    assert "file=pkg/gates.py,line=12," in lines[3]
    assert all("\n" not in line for line in lines)


def test_strict_annotations_call_inconclusive_an_error():
    assert sum(line.startswith("::error") for line in ci.commands(JUDGEMENT, config=None, strict=True)) == 3


def test_the_document_is_json_with_exact_numbers():
    data = json.loads(ci.render(ci.document(JUDGEMENT, exit_code=3, seconds=1.0)))
    assert (data["schema"], data["exit_code"]) == (1, 3)
    assert data["verdicts"][2]["ratio"] == {"estimate": 1.1, "low": 0.9, "high": 1.3}
    assert data["verdicts"][1]["after"] == 200
    assert data["counts"]["regression"] == 1


def test_an_error_is_told_in_forms_that_their_readers_accept(junit_schema):
    error = BaselineError("no 100% <baseline>\x00\nat all", hint="write | it")
    junit_schema.validate(ci.junit_of_refusal(error, seconds=1.5))
    assert (
        ci.command_of_refusal(str(error))
        .partition("::error title=afftool check::")[2]
        .startswith("no 100%25 <baseline>")
    )
    assert "\n" not in ci.command_of_refusal(str(error))
    page = Cells()
    page.feed(MarkdownIt("gfm-like", {"linkify": False}).render(markdown_of_refusal(error.message, error.hint)))
    assert page.tags <= {"h2", "p", "br"}
